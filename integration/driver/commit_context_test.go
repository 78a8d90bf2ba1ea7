package driver_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// interruptions end the context of a transaction.
var interruptions = map[string]func(ctx context.Context) (context.Context, func(), error){
	"deadline": func(ctx context.Context) (context.Context, func(), error) {
		e := newExpiring(ctx)
		return e, e.expire, context.DeadlineExceeded
	},
	"cancellation": func(ctx context.Context) (context.Context, func(), error) {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, context.Canceled
	},
}

func TestCommitInterruptedByItsContextIsUnknownAndMatchesItIfNobodyAsks(t *testing.T) {
	server := newServer(t)
	for name, interruption := range interruptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			ctx, end, want := interruption(s.context())
			c := newCommitting(ctx, s, retrypg.WithCommitCheck(retrypg.NoCheck))
			s.afterwards(s.proxy.OnMessage(pgtest.Sent("commit"), pgtest.BlackHoleAfter()), end)
			err := c.tx.Commit()
			require.ErrorIs(t, err, want)
			c.requireUnknown(err)
			s.settle()
			require.LessOrEqual(t, s.rows(), 1)
		})
	}
}

// TestCommitInterruptedByItsContextIsSettled: the context ends when the server has COMMIT, whose answer does not come, or
// when COMMIT is on its way and never arrives.
func TestCommitInterruptedByItsContextIsSettled(t *testing.T) {
	server := newServer(t)
	for name, interruption := range interruptions {
		for where, tc := range map[string]struct {
			hole pgtest.Action
			rows int
		}{
			"after the server got it":  {pgtest.BlackHoleAfter(), 1},
			"before the server got it": {pgtest.BlackHoleBefore(), 0},
		} {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				ctx, end, want := interruption(s.context())
				c := newCommitting(ctx, s)
				s.afterwards(s.proxy.OnMessage(pgtest.Sent("commit"), tc.hole), end)
				err := c.tx.Commit()
				require.Equal(t, tc.rows, s.rows())
				if tc.rows == 1 {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, want)
				require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome)
				require.EqualValues(t, 1, c.checks.Load())
			})
		}
	}
}

func TestCommitAfterItsContextEndedIsNotApplied(t *testing.T) {
	s := newScene(t, newServer(t))
	ctx, cancel := context.WithCancel(s.context())
	c := newCommitting(ctx, s)
	cancel()
	err := c.tx.Commit()      // database/sql answers itself: with the context's error, or that it has rolled back already
	if err != sql.ErrTxDone { //nolint:errorlint // the value itself
		require.ErrorIs(t, err, context.Canceled)
	}
	c.requireNotApplied(err)
}
