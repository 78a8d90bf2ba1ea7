package connect_test

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/policy"
)

func TestDeadlineEndsConnectingWithTheLastAnswerOfTheServer(t *testing.T) {
	d, p := newProxied(t)
	for name, test := range map[string]struct {
		obstacle func(*pgtest.Proxy) func()
		cause    func(t *testing.T, err error)
	}{
		"refused": {accepting(pgtest.AcceptRefuse), func(t *testing.T, err error) {
			require.True(t, is[*net.OpError](err))
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}},
		"starting up": {answering("57P03", "the database system is starting up"), func(t *testing.T, err error) {
			var server *pgconn.PgError
			require.ErrorAs(t, err, &server)
			require.Equal(t, "57P03", server.Code)
		}},
		"no answer": {accepting(pgtest.AcceptSilent), func(t *testing.T, err error) {
			require.ErrorContains(t, err, "deadline")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			remove := test.obstacle(p)
			defer remove()
			each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				e := exhausted(t, connect(ctx, through(p, d)))
				require.Equal(t, policy.StopDeadline, e.Reason)
				require.ErrorIs(t, e, context.DeadlineExceeded)
				test.cause(t, e)
			})
		})
	}
}

// TestDeadlineThatCutsAnAttemptShortDoesNotHideTheAnswerBeforeIt: the last attempt says only that time was up.
func TestDeadlineThatCutsAnAttemptShortDoesNotHideTheAnswerBeforeIt(t *testing.T) {
	d, p := newProxied(t)
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		rule := p.OnMessages(2, authentication, refusing("57P03", "the database system is starting up"))
		silent := p.OnMessages(1000, authentication, pgtest.BlackHoleBefore())
		defer silent.Remove()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		e := exhausted(t, connect(ctx, through(p, d)))
		require.Equal(t, 2, rule.Fired())
		var server *pgconn.PgError
		require.ErrorAs(t, e, &server)
		require.Equal(t, "57P03", server.Code)
		require.ErrorIs(t, e, context.DeadlineExceeded)
		require.Equal(t, 3, e.Attempts)
	})
}

func TestCancellingEndsTheWaitAndTellsTheCause(t *testing.T) {
	cause := errors.New("the user closed the window")
	d, p := newProxied(t)
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		ctx, cancel := context.WithCancelCause(within(t))
		w := newWatch()
		connecting := later(func() error { return connect(ctx, through(p, d), w.option()) })
		require.NoError(t, w.waits(t.Context(), 3))
		cancel(cause)
		e := exhausted(t, done(t, connecting))
		require.Equal(t, policy.StopCanceled, e.Reason)
		require.ErrorIs(t, e, context.Canceled)
		require.ErrorIs(t, e, cause)
		require.ErrorIs(t, e, syscall.ECONNREFUSED)
	})
}

// TestCancellingEndsAnAttemptThatGetsNoAnswer: the wait is that of the network, not of the backoff.
func TestCancellingEndsAnAttemptThatGetsNoAnswer(t *testing.T) {
	d, p := newProxied(t)
	require.NoError(t, p.SetAccept(pgtest.AcceptSilent))
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		before := p.Stats().Accepted
		ctx, cancel := context.WithCancel(within(t))
		connecting := later(func() error { return connect(ctx, through(p, d)) })
		require.NoError(t, p.Wait(t.Context(), func(s pgtest.Stats) bool { return s.Accepted > before }))
		cancel()
		err := done(t, connecting)
		harmless(t, err)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestContextThatHasEndedIsNotConnectedWith(t *testing.T) {
	d, p := newProxied(t)
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := connect(ctx, through(p, d))
		harmless(t, err)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, p.Stats().Accepted)
	})
}

func TestWithoutADeadlineTheSettingBoundsTheWait(t *testing.T) {
	d, p := newProxied(t)
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	for name, dsn := range map[string]string{
		"key":    through(p, d, "retry_connect_max_elapsed=200ms"),
		"option": through(p, d),
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
				var opts []retrypg.Option
				if name == "option" {
					opts = append(opts, retrypg.WithConnectMaxElapsed(200*time.Millisecond))
				}
				e := exhausted(t, connect(context.WithoutCancel(t.Context()), dsn, opts...))
				require.Equal(t, policy.StopMaxElapsed, e.Reason)
				require.Greater(t, e.Attempts, 1)
				require.ErrorIs(t, e, syscall.ECONNREFUSED)
				require.NotErrorIs(t, e, context.DeadlineExceeded, "the caller set none")
			})
		})
	}
}

// TestDeadlineWinsOverTheSetting: the setting is for contexts without one.
func TestDeadlineWinsOverTheSetting(t *testing.T) {
	d, p := newProxied(t)
	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		e := exhausted(t, connect(ctx, through(p, d, "retry_connect_max_elapsed=1ms")))
		require.Equal(t, policy.StopDeadline, e.Reason)
		require.Greater(t, e.Attempts, 3)
	})
}

// TestServerThatTurnsHopelessEndsTheWaitAtOnce: while it was away the password was changed.
func TestServerThatTurnsHopelessEndsTheWaitAtOnce(t *testing.T) {
	d, p := newProxied(t)
	each(t, func(t *testing.T, connect func(context.Context, string, ...retrypg.Option) error) {
		p.OnMessages(2, authentication, refusing("57P03", "the database system is starting up"))
		defer p.OnMessage(authentication, refusing("28P01", "password authentication failed")).Remove()
		err := connect(within(t), through(p, d))
		e := exhausted(t, err)
		require.Equal(t, policy.StopNotRetryable, e.Reason)
		require.Equal(t, 3, e.Attempts)
		require.Equal(t, "28P01", retrypg.SQLState(err))
	})
}

// TestCallersOwnDeadlineSaysNothingOfTheServer: a dial gets the deadline of its context, and may notice its end before
// the context itself does.
func TestCallersOwnDeadlineSaysNothingOfTheServer(t *testing.T) {
	d, p := newProxied(t)
	w := newWatch()
	db := open(t, through(p, d), w.option(), retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error {
		cfg.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
			deadline, _ := ctx.Deadline()
			<-time.After(time.Until(deadline))
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
		}
		return nil
	}))
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
		require.ErrorIs(t, db.PingContext(ctx), context.DeadlineExceeded)
		cancel()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(t, w.downs)
}

// TestTheRowsOfAPoolTellOfTheStatementTimeoutThatEndedThem: the caller has no deadline that it could be.
func TestTheRowsOfAPoolTellOfTheStatementTimeoutThatEndedThem(t *testing.T) {
	d, p := newProxied(t)
	pool := newPool(t, through(p, d, "retry_statement_timeout=500ms"))
	// The second row is long enough for the server to send the whole of the first before it sleeps.
	rows, err := pool.Query(context.WithoutCancel(t.Context()),
		"select repeat('x', 20000), pg_sleep(case n when 3 then 60 else 0 end) from generate_series(1, 3) n")
	require.NoError(t, err)
	defer rows.Close()
	require.True(t, rows.Next())
	for rows.Next() { // what is there of the rest
	}
	require.ErrorContains(t, rows.Err(), "no answer within retry_statement_timeout (500ms)")
	require.Equal(t, retrypg.RetryReconnect, retrypg.Classify(rows.Err()).Retry)
}
