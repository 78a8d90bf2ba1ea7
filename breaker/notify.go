package breaker

// change is a change of state that OnStateChange is to be told.
type change struct{ from, to State }

// unlock gives mu back, and tells the changes that were made under it.
func (b *Breaker) unlock() {
	pending := len(b.changes) > 0
	b.mu.Unlock()
	for pending {
		pending = b.tell()
	}
}

// tell calls OnStateChange with the oldest change, and reports whether it did. It does not if another call is running: the
// goroutine of that one goes on with the rest, so that the calls keep the order of the changes.
func (b *Breaker) tell() bool {
	b.mu.Lock()
	if b.telling || len(b.changes) == 0 {
		b.mu.Unlock()
		return false
	}
	c := b.changes[0]
	b.changes = b.changes[1:]
	b.telling = true
	b.mu.Unlock()
	defer func() { // also after a panic of the callback, which goes on
		b.mu.Lock()
		b.telling = false
		b.mu.Unlock()
	}()
	b.opts.OnStateChange(c.from, c.to)
	return true
}
