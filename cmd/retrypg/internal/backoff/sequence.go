package backoff

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// Bounds of what is simulated: enough for every question, and done in seconds.
const (
	maxAttempts = 1000
	maxDraws    = 1_000_000
)

// Report is what a number of draws of each policy gave.
type Report struct {
	Attempts int        `json:"attempts"` // of one operation, the first included
	Draws    int        `json:"draws"`    // operations that were drawn for each policy
	Seed     uint64     `json:"seed"`
	Policies []Sequence `json:"policies"`
}

// Sequence is the waits of one policy.
type Sequence struct {
	Policy string `json:"policy"` // as package policy writes it
	Kind   string `json:"kind"`
	Jitter string `json:"jitter"`
	Waits  []Wait `json:"waits"`
}

// Wait is one wait, in seconds. Without jitter the three are the same.
type Wait struct {
	After    int     `json:"after"` // the number of the attempt that it follows
	Shortest float64 `json:"shortest"`
	Mean     float64 `json:"mean"`
	Longest  float64 `json:"longest"`
	SumMean  float64 `json:"sum_mean"` // of this wait and those before
	SumMax   float64 `json:"sum_max"`
}

// Sequences draws the waits of each policy.
func Sequences(policies []Policy, attempts, draws int, seed uint64) (*Report, error) {
	if attempts < 2 || attempts > maxAttempts {
		return nil, fmt.Errorf("%d attempts: give 2 to %d", attempts, maxAttempts)
	}
	if draws < 1 || draws > maxDraws {
		return nil, fmt.Errorf("%d draws: give 1 to %d", draws, maxDraws)
	}
	r := &Report{Attempts: attempts, Draws: draws, Seed: seed}
	for i := range policies {
		p := &policies[i]
		s := Sequence{Policy: p.String(), Kind: p.Kind, Jitter: p.Jitter, Waits: p.waits(attempts-1, draws, seed)}
		r.Policies = append(r.Policies, s)
	}
	return r, nil
}

func (p *Policy) waits(n, draws int, seed uint64) []Wait {
	rng := rand.New(rand.NewPCG(seed, 0))
	waits := make([]Wait, n)
	for d := range draws {
		var wait time.Duration
		sum := 0.0
		for i := range waits {
			wait = p.draw(rng, policy.Attempt{Number: i + 1, Wait: wait})
			w, seconds := &waits[i], wait.Seconds()
			sum += seconds
			if d == 0 {
				w.After, w.Shortest = i+1, seconds
			}
			w.Shortest, w.Longest = min(w.Shortest, seconds), max(w.Longest, seconds)
			w.Mean += seconds / float64(draws)
			w.SumMean += sum / float64(draws)
			w.SumMax = max(w.SumMax, sum)
		}
	}
	return waits
}
