package breaker

// Permit is the leave to make one attempt. Exactly one of Success, Failure and Ignore should be called when the attempt
// has ended; the first call counts, later ones do nothing, so "defer permit.Ignore()" covers every other way out. A Permit
// is a small value for one goroutine: of two copies each reports by itself. The zero Permit belongs to no breaker and does
// nothing.
type Permit struct {
	breaker *Breaker // nil once reported
	token   uint64
}

// Success reports that the attempt has worked.
func (p *Permit) Success() {
	b := p.breaker
	p.breaker = nil
	b.Settle(p.token, 1)
}

// Failure reports that the attempt has failed in a way that speaks of the server's health.
func (p *Permit) Failure() {
	b := p.breaker
	p.breaker = nil
	b.Settle(p.token, -1)
}

// Ignore ends the attempt without a verdict: it was cancelled, or failed for a reason of its own, such as a violated
// constraint. It gives back the place of a probe.
func (p *Permit) Ignore() {
	b := p.breaker
	p.breaker = nil
	b.Settle(p.token, 0)
}
