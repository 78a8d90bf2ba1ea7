package breaker_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
)

func TestNewSaysWhichOptionIsOutOfBounds(t *testing.T) {
	for says, o := range map[string]breaker.Options{
		"failures -1":            {Failures: -1},
		"failures 10001":         {Failures: breaker.MaxFailures + 1},
		"probes -2":              {Probes: -2},
		"probes 10001":           {Probes: breaker.MaxProbes + 1},
		"probe successes -3":     {ProbeSuccesses: -3},
		"probe successes 20000":  {ProbeSuccesses: 20000},
		"window -1ns":            {Window: -1},
		"open for -2ns":          {OpenFor: -2},
		"probe lease -2562047h4": {ProbeLease: math.MinInt64},
	} {
		b, err := breaker.New(o)
		require.Nil(t, b)
		require.ErrorContains(t, err, "breaker: "+says)
	}
}

func TestTheLargestOptionsAreAccepted(t *testing.T) {
	b := newBreaker(t, breaker.Options{
		Failures: breaker.MaxFailures, Probes: breaker.MaxProbes, ProbeSuccesses: breaker.MaxProbes,
		Window: math.MaxInt64, OpenFor: math.MaxInt64, ProbeLease: math.MaxInt64,
	})
	fail(t, b, breaker.MaxFailures-1)
	require.Equal(t, breaker.Closed, b.State())
	fail(t, b, 1)
	require.Equal(t, breaker.Open, b.State())
}

func FuzzNew(f *testing.F) {
	f.Add(1, 1, 1, int64(1), int64(1), int64(1), []byte{1, 2, 3})
	f.Add(0, 0, 0, int64(0), int64(0), int64(0), []byte{2, 2, 2, 2, 2, 0, 1})
	f.Add(-1, math.MaxInt, 7, int64(-5), int64(math.MaxInt64), int64(math.MinInt64), []byte{})
	f.Fuzz(func(t *testing.T, failures, probes, successes int, window, openFor, lease int64, steps []byte) {
		b, err := breaker.New(breaker.Options{
			Failures: failures, Probes: probes, ProbeSuccesses: successes,
			Window: time.Duration(window), OpenFor: time.Duration(openFor), ProbeLease: time.Duration(lease),
		})
		if (b == nil) == (err == nil) {
			t.Fatalf("%v with error %v", b, err)
		}
		if err != nil {
			return
		}
		for _, s := range steps {
			p, err := b.Allow()
			state := b.State()
			if err != nil && state == breaker.Closed {
				t.Fatalf("closed, but refused: %v", err)
			}
			switch s % 4 {
			case 0:
				p.Success()
			case 1:
				p.Failure()
			case 2:
				p.Ignore()
			}
		}
	})
}
