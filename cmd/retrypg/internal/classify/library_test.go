package classify

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest/script"
	"github.com/retrypg/retrypg/internal/sqlstate"
)

// failsOnce is a server that answers the statement with the error the first time, and well after that.
func failsOnce(t *testing.T, s sent, statement string) *sql.DB {
	t.Helper()
	var answered atomic.Bool
	server := script.New(script.Accept(func(_ *script.Session, sql string) script.Result {
		if sql != statement || !answered.CompareAndSwap(false, true) {
			return script.Result{}
		}
		return script.Result{
			Err:   &pgproto3.ErrorResponse{Severity: s.severity, SeverityUnlocalized: s.severity, Code: s.code, Message: "m", Routine: s.routine},
			Close: s.severity == "FATAL",
		}
	}))
	t.Cleanup(server.Close)
	db, err := retrypg.OpenDB("postgres://app@db/shop?sslmode=disable&default_query_exec_mode=simple_protocol&retry_commit_check=off",
		retrypg.WithConnConfig(func(cfg *pgx.ConnConfig) error { server.Configure(&cfg.Config); return nil }), retrypg.WithoutTelemetry())
	require.NoError(t, err)
	return db
}

// The rules of actions.go are told apart from the library here, by what the library does.
func TestTheLibraryDoesWhatIsSaidOfEveryCode(t *testing.T) {
	for _, how := range []sent{{severity: "ERROR", routine: anyRoutine}, {severity: "FATAL", routine: anyRoutine}, {severity: "ERROR"}, {severity: "FATAL"}} {
		for _, row := range sqlstate.Entries() {
			s := how
			s.code = row.Code
			a := s.verdict().Actions
			if a.Statement == nil || row.Retry == sqlstate.Failover {
				continue // met while connecting; or the server is asked what it is, which has a test of the library
			}
			t.Run(row.Code+" "+s.words(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, runs := t.Context(), 0
					db := failsOnce(t, s, "select 1")
					_, err := db.ExecContext(ctx, "select 1")
					if a.Statement.Does != Perhaps {
						require.Equal(t, a.Statement.Does == Again, err == nil, "statement: %v", err)
					}
					require.NoError(t, db.Close())

					db = failsOnce(t, s, "select 1")
					err = retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
						runs++
						_, err := tx.ExecContext(ctx, "select 1")
						return err
					})
					require.Equal(t, a.Transaction.Does == Again, err == nil, "WithTx: %v", err)
					require.Equal(t, a.Transaction.Does == Again, runs == 2, "WithTx: %d runs", runs)
					require.NoError(t, db.Close())

					db, runs = failsOnce(t, s, "commit"), 0
					err = retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
						runs++
						_, err := tx.ExecContext(ctx, "select 2") // without a statement there is no COMMIT
						return err
					})
					require.Equal(t, a.Commit.Does == Asks, errors.Is(err, retrypg.ErrCommitUnknown), "COMMIT: %v", err)
					require.Equal(t, a.Commit.Does == Again, err == nil, "COMMIT: %v", err)
					require.Equal(t, a.Commit.Does == Again, runs == 2, "COMMIT: %d runs", runs)
					require.NoError(t, db.Close())
				})
			})
		}
	}
}
