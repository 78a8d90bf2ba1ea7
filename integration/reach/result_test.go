package reach_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// result is what one run of a situation has shown. Zero is what was not measured.
type result struct {
	callers, back int           // how many there are, and were served again
	first, all    time.Duration // from the end of the outage until the first, and the last, of those that are back
	told          []error       // all errors that callers were told
	attempts      float64       // to connect, per second, during the outage
	refused       int           // times the server said 25006
	count         int           // attempts to connect in all, during the outage
	p50, p99      time.Duration // from when an entry was wanted until it was told to be there
	perSecond     float64       // entries that were told to be there
	report        *audit.Report
}

// judge stops the load, and says what it has seen: since t0, where the outage ended, and in all.
func (l *load) judge(ctx context.Context, t *testing.T, t0 time.Time, server *pgtest.Cluster) *result {
	t.Helper()
	l.stop()
	r := &result{callers: len(l.calls)}
	gaps := l.backLocked(t0)
	if r.back = len(gaps); r.back > 0 {
		r.first, r.all = gaps[0], gaps[r.back-1]
	}
	for _, calls := range l.calls {
		for _, c := range calls {
			if c.err != nil {
				r.told = append(r.told, c.err)
			}
		}
	}
	r.report = l.record.Compare(audit.CountAt(ctx, t, server.DSN(), audit.Table))
	return r
}

// latencies fills in how long callers waited for each entry, and how many there were, while the measurement went on.
func (r *result) latencies(l *load) {
	var took []time.Duration
	for _, calls := range l.calls {
		for _, c := range calls {
			if c.err == nil {
				took = append(took, c.ended.Sub(c.wanted))
			}
		}
	}
	slices.Sort(took)
	if len(took) == 0 {
		return
	}
	r.p50, r.p99 = took[len(took)/2], took[len(took)*99/100]
	r.perSecond = float64(len(took)) / l.end.Sub(l.began).Seconds()
}

// attempted fills in how often the server was asked for a connection.
func (r *result) attempted(n int, during time.Duration) {
	r.count, r.attempts = n, float64(n)/during.Seconds()
}

// toldOf returns how many errors were told that have an SQLSTATE.
func (r *result) toldOf(code string) (n int) {
	for _, err := range r.told {
		if retrypg.SQLState(err) == code || strings.Contains(err.Error(), "SQLSTATE "+code) {
			n++
		}
	}
	return n
}

func (r *result) unknown() (n int) {
	for _, err := range r.told {
		if errors.Is(err, retrypg.ErrCommitUnknown) {
			n++
		}
	}
	return n
}

// sound requires that what was told of each entry is true.
func (r *result) sound(t *testing.T) {
	t.Helper()
	r.report.Check(t)
}

// untold requires that no caller was told of an error.
func (r *result) untold(t *testing.T) {
	t.Helper()
	for _, err := range r.told[:min(len(r.told), 10)] {
		t.Logf("told: %v", err)
	}
	require.Zero(t, len(r.told), "errors told")
}

// within requires that all are back. limit is far from what is reached, as the machine may be busy with something else.
func (r *result) within(t *testing.T, limit time.Duration) {
	t.Helper()
	require.Equal(t, r.callers, r.back, "callers that were served again")
	require.LessOrEqual(t, r.all, limit, "until the last was served again")
}
