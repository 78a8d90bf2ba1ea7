package backoff

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// settings are those of the kinds and jitters, with waits from 100 ms to 1 s.
func settings(kinds, jitters []string) Settings {
	return Settings{
		Kinds: kinds, Jitters: jitters,
		Initial: 100 * time.Millisecond, Max: time.Second, Increment: 150 * time.Millisecond, Multiplier: 2,
	}
}

func policies(t *testing.T, kinds, jitters []string) []Policy {
	t.Helper()
	p, err := settings(kinds, jitters).Policies()
	require.NoError(t, err)
	return p
}

func TestSeededDrawsAreDistributedAsThoseOfTheLibrary(t *testing.T) {
	const draws = 50_000
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range policies(t, []string{All}, []string{All}) {
		for _, a := range []policy.Attempt{{Number: 1}, {Number: 3, Wait: 200 * time.Millisecond}, {Number: 9, Wait: 900 * time.Millisecond}} {
			shortest, longest := p.Bounds(a)
			var ours, theirs, capped, cappedTheirs float64
			for range draws {
				seeded := p.draw(rng, a)
				free, _ := p.Next(a)
				if seeded < shortest || seeded > longest {
					t.Fatalf("%v after attempt %d: drew %v, bounds %v to %v", p, a.Number, seeded, shortest, longest)
				}
				ours, theirs = ours+seeded.Seconds()/draws, theirs+free.Seconds()/draws
				if seeded == time.Second {
					capped++
				}
				if free == time.Second {
					cappedTheirs++
				}
			}
			require.InEpsilon(t, theirs, ours, 0.03, "%v after attempt %d", p, a.Number)
			require.InDelta(t, cappedTheirs/draws, capped/draws, 0.03, "%v after attempt %d: draws at the cap", p, a.Number)
		}
	}
}

func TestAllStandsForEveryPairThatExists(t *testing.T) {
	require.Len(t, policies(t, []string{All}, []string{All}), len(Kinds)*len(Jitters)-1, "fixed waits have no decorrelated jitter")
	require.Len(t, policies(t, []string{"linear", All, "linear"}, []string{"none"}), len(Kinds), "each once")
}

func TestAPolicyThatThereIsNotIsRefused(t *testing.T) {
	for says, s := range map[string]Settings{
		"exponential or all":       settings([]string{"quadratic"}, []string{"none"}),
		"give none, full, equal":   settings([]string{"fixed"}, []string{"some"}),
		"needs a wait to grow to":  settings([]string{"fixed"}, []string{"decorrelated"}),
		"no kind given":            settings(nil, []string{"none"}),
		"no jitter given":          settings([]string{"fixed"}, nil),
		"must be a finite number":  {Kinds: []string{"exponential"}, Jitters: []string{"none"}, Initial: 1, Max: 1},
		"not shorter than the ini": {Kinds: []string{"linear"}, Jitters: []string{"none"}, Initial: 2, Max: 1},
	} {
		_, err := s.Policies()
		require.ErrorContains(t, err, says)
	}
}
