package driver_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
)

func TestCommitInterruptedByItsContextIsUnknownAndMatchesIt(t *testing.T) {
	server := newServer(t)
	t.Run("deadline", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		ctx := newExpiring(s.context())
		c := newCommitting(ctx, s)
		s.afterwards(s.proxy.OnMessage(pgtest.Sent("commit"), pgtest.BlackHoleAfter()), ctx.expire)
		err := c.tx.Commit()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		c.requireUnknown(err)
		s.settle()
		require.LessOrEqual(t, s.rows(), 1)
	})
	t.Run("cancellation", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, server)
		ctx, cancel := context.WithCancel(s.context())
		c := newCommitting(ctx, s)
		s.afterwards(s.proxy.OnMessage(pgtest.Sent("commit"), pgtest.BlackHoleAfter()), cancel)
		err := c.tx.Commit()
		require.ErrorIs(t, err, context.Canceled)
		c.requireUnknown(err)
		s.settle()
		require.LessOrEqual(t, s.rows(), 1)
	})
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
