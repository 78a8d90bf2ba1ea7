package retrypg

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// scriptedPool opens a Pool whose server is s, for the length of a test in a bubble.
func scriptedPool(t *testing.T, s *script.Server, opts ...Option) *Pool {
	t.Helper()
	t.Cleanup(s.Close)
	pool, err := NewPool(t.Context(), scriptedDSN, append([]Option{onScript(s), WithCommitCheck(NoCheck)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// poolWays are the ways to run a statement through a Pool.
var poolWays = map[string]func(ctx context.Context, pool *Pool, query string) error{
	"Exec": func(ctx context.Context, pool *Pool, query string) error {
		_, err := pool.Exec(ctx, query)
		return err
	},
	"Exec with an argument": func(ctx context.Context, pool *Pool, query string) error {
		_, err := pool.Exec(ctx, query+" $1", "x")
		return err
	},
	"Query": func(ctx context.Context, pool *Pool, query string) error {
		rows, err := pool.Query(ctx, query)
		if err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	},
	"QueryRow": func(ctx context.Context, pool *Pool, query string) error {
		var v any
		return pool.QueryRow(ctx, query+" returning 1").Scan(&v)
	},
}

func eachPoolWay(t *testing.T, f func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error)) {
	for name, way := range poolWays {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, way) }) })
	}
}

// onStandby serves a hot standby whose first n inserts fail with err.
func onStandby(n int, err *pgproto3.ErrorResponse) *script.Server {
	return script.New(script.Serve(script.Script{
		Run:        returningOne(failing("insert", n, err)),
		Columns:    oneColumn,
		Parameters: map[string]string{"in_hot_standby": "on"},
	}))
}

// returningOne makes run answer what asks for rows with one.
func returningOne(run func(*script.Session, string) script.Result) func(*script.Session, string) script.Result {
	return func(s *script.Session, sql string) script.Result {
		r := run(s, sql)
		if strings.Contains(sql, "returning") && r.Err == nil && !r.Close && r.After == nil {
			return script.Text("1")
		}
		return r
	}
}

func oneColumn(sql string) []script.Column {
	if strings.Contains(sql, "returning") {
		return []script.Column{{Name: "one"}}
	}
	return nil
}

func TestAPoolSendsAStatementThatMetAStandbyOverAnotherConnection(t *testing.T) {
	eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
		s := onStandby(2, serverError("25006", "cannot execute INSERT in a read-only transaction"))
		require.NoError(t, run(t.Context(), scriptedPool(t, s), "insert into t values (1)"))
		require.Equal(t, 3, ran(s, "insert"))
		require.Len(t, s.Attempts(), 3, "a connection to the standby was used again")
	})
}

func TestAPoolSendsAnIdempotentStatementAgainWhoseAnswerWasLost(t *testing.T) {
	eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
		s := script.New(script.Serve(script.Script{Run: returningOne(losingInserts(maxLost - 1)), Columns: oneColumn}))
		require.NoError(t, run(Idempotent(t.Context()), scriptedPool(t, s), "insert into t values (1)"))
		require.Equal(t, maxLost, ran(s, "insert"))
	})
	eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
		s := script.New(script.Serve(script.Script{Run: losingInserts(1000), Columns: oneColumn}))
		err := run(Idempotent(t.Context()), scriptedPool(t, s), "insert into t values (1)")
		require.Equal(t, OutcomeUnknown, Classify(err).Outcome, "%v", err)
		require.Equal(t, maxLost, ran(s, "insert"))
	})
}

func TestAPoolDoesNotSendAgainWhatMayHaveRun(t *testing.T) {
	eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
		s := script.New(script.Serve(script.Script{Run: losingInserts(1), Columns: oneColumn}))
		err := run(t.Context(), scriptedPool(t, s), "insert into t values (1)")
		require.Equal(t, OutcomeUnknown, Classify(err).Outcome, "%v", err)
		require.Equal(t, 1, ran(s, "insert"))
	})
}

// TestAPoolDoesNotSendAgainWhatARewriterWrites: it is another text than the one that is judged.
func TestAPoolDoesNotSendAgainWhatARewriterWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := onStandby(1, serverError("25006", "cannot execute INSERT in a read-only transaction"))
		_, err := scriptedPool(t, s).Exec(t.Context(), "select 1", rewriter("insert into t values (1)"))
		require.Equal(t, "25006", SQLState(err))
		require.Equal(t, 1, ran(s, "insert"))
	})
	synctest.Test(t, func(t *testing.T) {
		s := onStandby(1, serverError("25006", "cannot execute INSERT in a read-only transaction"))
		_, err := scriptedPool(t, s).Exec(t.Context(), "insert into t values (@v)", pgx.NamedArgs{"v": "x"})
		require.NoError(t, err)
		require.Equal(t, 2, ran(s, "insert"))
	})
}

// rewriter sends its own text.
type rewriter string

func (r rewriter) RewriteQuery(context.Context, *pgx.Conn, string, []any) (string, []any, error) {
	return string(r), nil, nil
}

// TestARefusalOfTheBreakerEndsTheAttemptsOfAPool: what the attempt before it failed with no longer counts.
func TestARefusalOfTheBreakerEndsTheAttemptsOfAPool(t *testing.T) {
	eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
		s := script.New(script.Serve(script.Script{Run: losingInserts(1000), Columns: oneColumn}))
		pool := scriptedPool(t, s, WithBreaker(breaker.Options{Failures: 1}))
		err := run(Idempotent(t.Context()), pool, "insert into t values (1)")
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.Equal(t, OutcomeUnknown, Classify(err).Outcome, "the first attempt may have taken effect: %v", err)
		require.Equal(t, 1, ran(s, "insert"))
	})
}

// TestAPoolThatIsClosedBetweenTwoAttemptsMakesNoOtherOne: the error is that of the pool.
func TestAPoolThatIsClosedBetweenTwoAttemptsMakesNoOtherOne(t *testing.T) {
	eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
		s := onStandby(1000, serverError("25006", "cannot execute INSERT in a read-only transaction"))
		var pool *Pool
		waits := 0
		pool = scriptedPool(t, s, WithHooks(Hooks{Backoff: func(context.Context, BackoffInfo) { waits++; pool.Close() }}))
		err := run(t.Context(), pool, "insert into t values (1)")
		require.ErrorIs(t, err, ErrClosed)
		require.Equal(t, 1, ran(s, "insert"))
		require.Equal(t, 1, waits)
	})
}

// TestAnIdempotentStatementOfAPoolWaitsOnceForAServerThatStaysAway: that nothing came of it is no reason to send it again.
func TestAnIdempotentStatementOfAPoolWaitsOnceForAServerThatStaysAway(t *testing.T) {
	eachPoolWay(t, func(t *testing.T, run func(ctx context.Context, pool *Pool, query string) error) {
		serving := script.Script{Run: returningOne(failing("", 0, nil)), Columns: oneColumn}
		s := script.New(script.Serve(serving), script.Refused())
		t.Cleanup(s.Close)
		cfg, err := pgxpool.ParseConfig(scriptedDSN)
		require.NoError(t, err)
		lost := false
		cfg.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) { // it breaks in the very moment
			if lost {
				_ = conn.PgConn().Conn().Close()
				_ = conn.Close(ctx)
			}
			return true, nil
		}
		const away = 5 * time.Second
		pool, err := NewPoolWithConfig(t.Context(), cfg, onScript(s), WithCommitCheck(NoCheck), WithConnectMaxElapsed(away))
		require.NoError(t, err)
		defer pool.Close()
		require.NoError(t, run(t.Context(), pool, "insert into t values (1)"))
		lost = true
		began := time.Now()
		_ = requireExhausted(t, run(Idempotent(t.Context()), pool, "insert into t values (1)"))
		require.LessOrEqual(t, time.Since(began), away+time.Second)
	})
}
