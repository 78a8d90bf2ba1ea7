package backoff

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// Slot is the time for which attempts are counted together.
const Slot = 100 * time.Millisecond

// Bounds of a storm: see maxAttempts.
const (
	maxClients       = 100_000
	maxOutage        = 10 * time.Minute
	maxStormAttempts = 20_000_000
)

// Storm is what the clients of one server do that it has failed at the same time.
type Storm struct {
	Clients  int           `json:"clients"`
	Outage   float64       `json:"outage"`   // seconds from the failure, in which each client makes an attempt, to the return
	Slot     float64       `json:"slot"`     // seconds
	Attempts int           `json:"attempts"` // after which a client gives up; 0: it does not
	Seed     uint64        `json:"seed"`
	Policies []StormPolicy `json:"policies"`
}

// StormPolicy is the storm of clients that have one policy.
type StormPolicy struct {
	Policy     string  `json:"policy"`
	Kind       string  `json:"kind"`
	Jitter     string  `json:"jitter"`
	PerSlot    []int   `json:"per_slot"` // attempts in each slot from the failure on, to the last one with an attempt
	Attempts   int     `json:"attempts"`
	Peak       int     `json:"peak"` // the most attempts in one slot after the first
	PeakAt     float64 `json:"peak_at"`
	ReturnPeak int     `json:"return_peak"` // the most attempts in one slot from the server's return on
	Served     int     `json:"served"`
	GaveUp     int     `json:"gave_up"`
	LastServed float64 `json:"last_served"`
}

// StormSettings say what happens.
type StormSettings struct {
	Clients  int
	Outage   time.Duration
	Attempts int // 0: without end
	Seed     uint64
}

// SimulateStorm lets clients of each policy fail together at 0, and try again until the server, which is back after the
// outage, serves them. It serves each attempt then: what is counted is what comes at it.
func SimulateStorm(policies []Policy, s StormSettings) (*Storm, error) {
	switch {
	case s.Clients < 1 || s.Clients > maxClients:
		return nil, fmt.Errorf("%d clients: give 1 to %d", s.Clients, maxClients)
	case s.Outage <= 0 || s.Outage > maxOutage:
		return nil, fmt.Errorf("an outage of %v: give a positive one of at most %v", s.Outage, maxOutage)
	case s.Attempts < 0 || s.Attempts == 1 || s.Attempts > maxAttempts:
		return nil, fmt.Errorf("%d attempts: give 2 to %d, or 0 for no limit", s.Attempts, maxAttempts)
	}
	storm := &Storm{Clients: s.Clients, Outage: s.Outage.Seconds(), Slot: Slot.Seconds(), Attempts: s.Attempts, Seed: s.Seed}
	for i := range policies {
		sp, err := policies[i].storm(s)
		if err != nil {
			return nil, err
		}
		storm.Policies = append(storm.Policies, sp)
	}
	return storm, nil
}

var errEndless = errors.New("the clients would make more than 20 million attempts: give longer waits, a shorter outage, or --attempts")

func (p *Policy) storm(s StormSettings) (StormPolicy, error) {
	result := StormPolicy{Policy: p.String(), Kind: p.Kind, Jitter: p.Jitter}
	rng := rand.New(rand.NewPCG(s.Seed, 0))
	for range s.Clients {
		var at, wait time.Duration
		for number := 1; ; number++ {
			if result.attempt(at); result.Attempts > maxStormAttempts {
				return result, fmt.Errorf("%s: %w", p, errEndless)
			}
			if at >= s.Outage {
				result.Served++
				result.LastServed = max(result.LastServed, at.Seconds())
				break
			}
			if number == s.Attempts {
				result.GaveUp++
				break
			}
			wait = p.draw(rng, policy.Attempt{Number: number, Wait: wait})
			at += wait
		}
	}
	result.peaks(s.Outage)
	return result, nil
}

// attempt counts an attempt.
func (r *StormPolicy) attempt(at time.Duration) {
	slot := int(at / Slot)
	for len(r.PerSlot) <= slot {
		r.PerSlot = append(r.PerSlot, 0)
	}
	r.PerSlot[slot]++
	r.Attempts++
}

// peaks finds the largest counts. That of the first slot is left out: it has the attempts that failed together.
func (r *StormPolicy) peaks(outage time.Duration) {
	for slot, n := range r.PerSlot {
		if slot > 0 && n > r.Peak {
			r.Peak, r.PeakAt = n, (time.Duration(slot) * Slot).Seconds()
		}
		if slot >= int(outage/Slot) {
			r.ReturnPeak = max(r.ReturnPeak, n)
		}
	}
}
