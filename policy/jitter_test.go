package policy_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func allJitters() []policy.Jitter {
	return []policy.Jitter{
		policy.NoJitter, policy.FullJitter, policy.EqualJitter, policy.DecorrelatedJitter,
		policy.Must(policy.ProportionalJitter(0.25)),
	}
}

func TestParseJitterAcceptsEveryName(t *testing.T) {
	quarter := policy.Must(policy.ProportionalJitter(0.25))
	for name, want := range map[string]policy.Jitter{
		"none":                policy.NoJitter,
		"full":                policy.FullJitter,
		"equal":               policy.EqualJitter,
		"decorrelated":        policy.DecorrelatedJitter,
		"proportional":        quarter,
		"proportional:0.25":   quarter,
		"proportional:0":      policy.NoJitter,
		"proportional:1":      policy.Must(policy.ProportionalJitter(1)),
		"proportional:2.5e-1": quarter,
	} {
		got, err := policy.ParseJitter(name)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
}

func TestParseJitterRefusesEverythingElse(t *testing.T) {
	for _, name := range []string{
		"", "Full", "ful", " full", "proportional:", "proportional:x", "proportional:-0.1", "proportional:1.5",
		"proportional:NaN", "proportional:+Inf", "full:0.5",
	} {
		_, err := policy.ParseJitter(name)
		require.Error(t, err, name)
	}
}

func TestParseJitterReadsWhatStringWrites(t *testing.T) {
	for _, j := range append(allJitters(), policy.Must(policy.ProportionalJitter(1)), policy.Must(policy.ProportionalJitter(1e-9))) {
		got, err := policy.ParseJitter(j.String())
		require.NoError(t, err)
		require.Equal(t, j, got)
	}
}

func TestProportionalJitterRefusesFactorsOutOfBounds(t *testing.T) {
	for _, f := range []float64{-1, -1e-12, 1.0001, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64} {
		_, err := policy.ProportionalJitter(f)
		require.ErrorContains(t, err, "from 0 to 1", f)
	}
}

func TestProportionalJitterTooSmallToMatterIsNoJitter(t *testing.T) {
	for _, f := range []float64{0, math.Copysign(0, -1), math.SmallestNonzeroFloat64, 3 * math.SmallestNonzeroFloat64, 9e-10} {
		j, err := policy.ProportionalJitter(f)
		require.NoError(t, err)
		require.Equal(t, policy.NoJitter, j, f)
	}
}

func TestConstructorsRefuseANumberThatIsNoJitter(t *testing.T) {
	for _, j := range []policy.Jitter{policy.DecorrelatedJitter + 1, 17, math.MaxUint64, policy.Jitter(math.Float64bits(2))} {
		_, err := policy.Fixed(1, j)
		require.Error(t, err)
		_, err = policy.Linear(1, 1, 1, j)
		require.Error(t, err)
		_, err = policy.Exponential(1, 1, 1, j)
		require.Error(t, err)
		require.Contains(t, j.String(), "jitter(")
	}
}
