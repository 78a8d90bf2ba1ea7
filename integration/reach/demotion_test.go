package reach_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestNoConnectionStaysAtAServerThatLostItsRole: the connections are sound, and of no use.
func TestNoConnectionStaysAtAServerThatLostItsRole(t *testing.T) {
	each(t, ours, func(t *testing.T, k kind) {
		r := demotion(t, k)
		require.Zero(t, r.toldOf("25006"), "times 25006 was told")
		require.Positive(t, r.refused)
		require.LessOrEqual(t, r.refused, workers, "writes refused: more than the statements that were under way")
		r.untold(t)
		r.sound(t)
		r.within(t, 5*time.Second)
	})
}

// demotion: all connections of the pool lead to a standby, as after a switch-over behind one address. The address leads to
// the primary from the moment in which the standby first refuses to write.
func demotion(t *testing.T, k kind) *result {
	ctx := within(t)
	primary, standby := newPair(t, false)
	record := newRecord(ctx, t, primary)
	require.NoError(t, standby.WaitReplayed(ctx, primary))
	p := pgt.Proxy(t, standby.Addr())
	var moved atomic.Pointer[time.Time]
	var refused atomic.Int32
	p.OnMessages(1_000_000, func(m pgtest.Message) bool {
		if m.Type == 'E' && m.Code == "25006" && refused.Add(1) == 1 {
			p.SetUpstream(primary.Addr())
			now := time.Now()
			moved.Store(&now)
		}
		return false
	}, pgtest.Pause())
	client := k.open(t, p.DSN(), workers)
	client.fill(ctx, t, workers)
	l := (&load{client: client, record: record, timeout: timeout}).start(t, workers)
	// What does not come back at once never does: the connections are sound.
	l.allBack(ctx, l.began, 10*time.Second)
	t0 := l.began
	if at := moved.Load(); at != nil {
		t0 = *at
	}
	r := l.judge(ctx, t, t0, primary)
	require.NotNil(t, moved.Load(), "nothing was written at the standby")
	r.refused = int(refused.Load())
	return r
}

// TestOldPrimaryThatComesBackAsAStandbyIsNotUsed: it is the first host of the list, and it is there again.
func TestOldPrimaryThatComesBackAsAStandbyIsNotUsed(t *testing.T) {
	each(t, ours, func(t *testing.T, k kind) {
		r := switchOver(t, k)
		require.Zero(t, r.toldOf("25006"), "times 25006 was told")
		r.untold(t)
		r.sound(t)
		r.within(t, 5*time.Second)
	})
}

// switchOver: the primary is stopped in good order, the standby promoted, and the old primary comes back as a standby. Then
// all connections are lost once more. The times are those of the promotion.
func switchOver(t *testing.T, k kind) *result {
	ctx := within(t)
	primary, standby := newPair(t, false)
	l := (&load{client: k.open(t, eitherOf(primary, standby), workers), record: newRecord(ctx, t, primary), timeout: timeout}).start(t, workers)
	require.NoError(t, l.progress(ctx))
	require.NoError(t, primary.StopFast(ctx)) // it has sent all to its standby then
	began := time.Now()
	require.NoError(t, standby.Promote(ctx))
	t0 := accepting(ctx, t, standby, began)
	l.allBack(ctx, t0, patience())
	require.NoError(t, primary.RejoinAsStandby(ctx, standby))
	lost, err := standby.TerminateBackends(ctx, "")
	require.NoError(t, err)
	require.Positive(t, lost)
	require.NoError(t, l.progress(ctx))
	return l.judge(ctx, t, t0, standby)
}
