package connect_test

import (
	"context"
	"database/sql"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/breaker"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// breakerKeys open the breaker after three failures in a row, for 300 ms.
var breakerKeys = []string{"breaker_failures=3", "breaker_open_for=300ms"}

// refused requires the refusal of a breaker and returns it.
func refused(t *testing.T, err error) *breaker.OpenError {
	t.Helper()
	harmless(t, err)
	require.ErrorIs(t, err, breaker.ErrOpen)
	var open *breaker.OpenError
	require.ErrorAs(t, err, &open)
	return open
}

// TestBreakerOfTheDSNOpensRefusesAndCloses follows it through its states.
func TestBreakerOfTheDSNOpensRefusesAndCloses(t *testing.T) {
	d := newDatabase(t)
	for name, handle := range handles {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			ctx := within(t)
			w := newWatch()
			var lines strings.Builder
			logger := slog.New(slog.NewTextHandler(&lines, nil))
			ping, _ := handle(t, through(p, d, breakerKeys...), "5", w.option(), retrypg.WithLogger(logger))
			require.NoError(t, p.SetAccept(pgtest.AcceptReset))

			// It opens while the caller waits for the server, and that ends the wait long before its deadline.
			open := refused(t, ping(ctx))
			require.LessOrEqual(t, open.RetryAfter(), 300*time.Millisecond)
			require.Equal(t, breaker.Open, open.State())

			// While it is open, nobody tries.
			before := p.Stats().Accepted
			for range 5 {
				if err := ping(ctx); open.RetryAfter() > 0 {
					open = refused(t, err)
				}
			}
			require.LessOrEqual(t, p.Stats().Accepted-before, 2, "an open breaker let attempts through") // after 300 ms one probe may
			require.NoError(t, p.SetAccept(pgtest.AcceptForward))

			// After the time it told, a probe closes it.
			for {
				err := ping(ctx)
				if err == nil {
					break
				}
				<-time.After(refused(t, err).RetryAfter())
			}
			require.NoError(t, ping(ctx))
			require.Contains(t, lines.String(), "closed")
			require.Contains(t, lines.String(), "open")
		})
	}
}

// TestRefusalIsFinalForWithTx: the loop does not try again what the breaker refuses.
func TestRefusalIsFinalForWithTx(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	db := open(t, through(p, d, breakerKeys...))
	require.NoError(t, p.SetAccept(pgtest.AcceptReset))
	runs := 0
	err := retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(context.Context, *sql.Tx) error { runs++; return nil })
	_ = refused(t, err)
	require.Zero(t, runs)
	require.NoError(t, ctx.Err())
}

// TestAnswersOfTheServerDoNotOpenTheBreaker: they say that it is there.
func TestAnswersOfTheServerDoNotOpenTheBreaker(t *testing.T) {
	d, p := newProxied(t)
	ctx := within(t)
	db := open(t, through(p, d, "breaker_failures=1"))
	pool := newPool(t, through(p, d, "breaker_failures=1"))
	for range 5 {
		_, err := db.ExecContext(ctx, "select 1/0")
		require.Equal(t, "22012", retrypg.SQLState(err))
		_, err = pool.Exec(ctx, "select 1/0")
		require.Equal(t, "22012", retrypg.SQLState(err))
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, db.PingContext(cancelled), context.Canceled)
		require.ErrorIs(t, pool.Ping(cancelled), context.Canceled)
	}
	require.NoError(t, db.PingContext(ctx))
	require.NoError(t, pool.Ping(ctx))
}

// TestLostStatementsOpenTheBreaker: those of database/sql and of the pool alike.
func TestLostStatementsOpenTheBreaker(t *testing.T) {
	d := newDatabase(t)
	for _, name := range []string{"db.Exec", "pool.Exec"} {
		t.Run(name, func(t *testing.T) {
			p := pgt.Proxy(t, d.Cluster.Addr())
			ctx := within(t)
			db := open(t, through(p, d, "breaker_failures=1", "breaker_open_for=1h"))
			pool := newPool(t, through(p, d, "breaker_failures=1", "breaker_open_for=1h"))
			_, err := db.ExecContext(ctx, "create table if not exists entry (id text)")
			require.NoError(t, err)
			insert := writers(db, pool)[name]
			require.NoError(t, insert(ctx, "1"))
			p.OnMessage(pgtest.Sent("insert"), pgtest.CutAfter(pgtest.Client, pgtest.RST))
			err = insert(ctx, "2")
			require.Error(t, err)
			require.NotErrorIs(t, err, breaker.ErrOpen)
			_ = refused(t, insert(ctx, "3"))
		})
	}
}
