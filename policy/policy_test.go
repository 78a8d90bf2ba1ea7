package policy_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// policyFunc is a policy of a user.
type policyFunc func(policy.Attempt) (time.Duration, bool)

func (f policyFunc) Next(a policy.Attempt) (time.Duration, bool) { return f(a) }

var _ policy.Policy = policy.Backoff{}

func atOnce() policy.Backoff { return policy.Must(policy.Fixed(0, policy.NoJitter)) }

func TestMaxAttemptsCountsTheFirstAttempt(t *testing.T) {
	for _, limit := range []int{1, 2, 10, math.MaxInt} {
		p := policy.Must(policy.MaxAttempts(atOnce(), limit))
		for _, n := range []int{1, 2, 9, 10, 11, math.MaxInt - 1, math.MaxInt} {
			_, ok := p.Next(policy.Attempt{Number: n})
			require.Equal(t, n < limit, ok, "attempt %d of %d", n, limit)
		}
	}
}

func TestMaxElapsedRefusesAWaitThatWouldEndAfterIt(t *testing.T) {
	p := policy.Must(policy.MaxElapsed(policy.Must(policy.Fixed(time.Second, policy.NoJitter)), 10*time.Second))
	for elapsed, want := range map[time.Duration]bool{
		0:                 true,
		9 * time.Second:   true, // ends at the limit
		9*time.Second + 1: false,
		10 * time.Second:  false,
		math.MaxInt64:     false,
		-time.Second:      true,
	} {
		_, ok := p.Next(policy.Attempt{Number: 1, Elapsed: elapsed})
		require.Equal(t, want, ok, elapsed)
	}
}

func TestTheLowestOfSeveralLimitsHolds(t *testing.T) {
	p := policy.Must(policy.MaxAttempts(atOnce(), 3))
	p = policy.Must(policy.MaxElapsed(p, time.Minute))
	p = policy.Must(policy.MaxAttempts(p, 10))
	p = policy.Must(policy.MaxElapsed(p, time.Hour))
	_, ok := p.Next(policy.Attempt{Number: 2, Elapsed: time.Minute})
	require.True(t, ok)
	_, ok = p.Next(policy.Attempt{Number: 3})
	require.False(t, ok)
	_, ok = p.Next(policy.Attempt{Number: 1, Elapsed: time.Minute + 1})
	require.False(t, ok)
	require.Equal(t, "fixed(0s, jitter none), at most 3 attempts, at most 1m0s", fmt.Sprint(p))
}

func TestLimitingDoesNotChangeThePolicyThatIsLimited(t *testing.T) {
	three := policy.Must(policy.MaxAttempts(atOnce(), 3))
	policy.Must(policy.MaxAttempts(three, 1))
	_, ok := three.Next(policy.Attempt{Number: 2})
	require.True(t, ok)
}

func TestLimitsRefuseBadArguments(t *testing.T) {
	for _, n := range []int{0, -1, math.MinInt} {
		require.ErrorContains(t, second(policy.MaxAttempts(atOnce(), n)), "at least 1")
	}
	for _, d := range []time.Duration{0, -1, math.MinInt64} {
		require.ErrorContains(t, second(policy.MaxElapsed(atOnce(), d)), "positive")
	}
	require.ErrorContains(t, second(policy.MaxAttempts(nil, 1)), "no policy")
	require.ErrorContains(t, second(policy.MaxElapsed(nil, 1)), "no policy")
}

func TestALimitMakesANegativeWaitOfAUsersPolicyZero(t *testing.T) {
	p := policy.Must(policy.MaxAttempts(policyFunc(func(policy.Attempt) (time.Duration, bool) { return -time.Hour, true }), 5))
	wait, ok := p.Next(policy.Attempt{Number: 1})
	require.True(t, ok)
	require.Zero(t, wait)
}

func TestTheDefaultPolicyIsWhatItsConstantsSay(t *testing.T) {
	p := policy.Default()
	require.Equal(t, "exponential(50ms to 5s, x2, jitter full), at most 5 attempts", fmt.Sprint(p))
	for n := 1; n < 10; n++ {
		wait, ok := p.Next(policy.Attempt{Number: n})
		require.Equal(t, n < policy.DefaultAttempts, ok)
		require.LessOrEqual(t, wait, policy.DefaultMaxWait)
	}
}

func TestEveryBackoffDescribesItself(t *testing.T) {
	for want, b := range map[string]policy.Backoff{
		"fixed(1s, jitter equal)":                                 policy.Must(policy.Fixed(time.Second, policy.EqualJitter)),
		"linear(1s to 1m0s, +2s, jitter none)":                    policy.Must(policy.Linear(time.Second, 2*time.Second, time.Minute, policy.NoJitter)),
		"exponential(50ms to 5s, x1.5, jitter proportional:0.25)": policy.Must(policy.Exponential(50*time.Millisecond, 5*time.Second, 1.5, policy.Must(policy.ParseJitter("proportional")))),
	} {
		require.Equal(t, want, b.String())
	}
}
