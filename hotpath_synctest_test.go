package retrypg

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// withTxAllocations is what WithTx allocates beside the transaction: the closures and the record of the attempt, the
// contexts that carry them, and the closure's scope. It is a bound: lower it when it falls.
const withTxAllocations = 12

// TestNothingIsAllocatedBesideWhatPgxAllocatesWhereNothingFails compares with database/sql over pgx itself, on servers
// that answer alike. The servers' own allocations count on both sides. It makes no difference whether metrics are recorded,
// be they read for the first time or not.
func TestNothingIsAllocatedBesideWhatPgxAllocatesWhereNothingFails(t *testing.T) {
	const insert = "insert into t values ($1)"
	insertTx := func(t *testing.T, db *sql.DB) {
		tx, err := db.BeginTx(endless, nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(endless, insert, 1)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
	}
	var stmt *sql.Stmt
	for _, tt := range []struct {
		name   string
		extra  float64
		prep   func(t *testing.T, db *sql.DB)
		run    func(t *testing.T, db *sql.DB)
		byHand func(t *testing.T, db *sql.DB) // what run is compared with; nil: run
	}{
		{name: "exec", run: func(t *testing.T, db *sql.DB) {
			_, err := db.ExecContext(endless, "insert into t values (1)")
			require.NoError(t, err)
		}},
		{name: "exec with an argument", run: func(t *testing.T, db *sql.DB) {
			_, err := db.ExecContext(endless, insert, 1)
			require.NoError(t, err)
		}},
		{name: "query", run: func(t *testing.T, db *sql.DB) {
			var n int
			require.NoError(t, db.QueryRowContext(endless, "select $1", 1).Scan(&n))
		}},
		{name: "prepared", prep: func(t *testing.T, db *sql.DB) {
			var err error
			stmt, err = db.PrepareContext(endless, insert)
			require.NoError(t, err)
			t.Cleanup(func() { _ = stmt.Close() })
		}, run: func(t *testing.T, _ *sql.DB) {
			_, err := stmt.ExecContext(endless, 1)
			require.NoError(t, err)
		}},
		{name: "ping", run: func(t *testing.T, db *sql.DB) { require.NoError(t, db.PingContext(endless)) }},
		{name: "transaction", run: insertTx},
		{name: "WithTx", extra: withTxAllocations, byHand: insertTx, run: func(t *testing.T, db *sql.DB) {
			require.NoError(t, WithTx(endless, db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, insert, 1)
				return err
			}))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				measure := func(db *sql.DB, run func(*testing.T, *sql.DB)) float64 {
					if tt.prep != nil {
						tt.prep(t, db)
					}
					for range 50 { // statement caches, buffers
						run(t, db)
					}
					return testing.AllocsPerRun(1000, func() { run(t, db) })
				}
				byHand := tt.byHand
				if byHand == nil {
					byHand = tt.run
				}
				pgxs := measure(overPgx(t, answering()), byHand)
				for name, open := range map[string]func(*testing.T) *sql.DB{
					"no provider": func(t *testing.T) *sql.DB { return scripted(t, answering()) },
					"no-op providers": func(t *testing.T) *sql.DB {
						return scripted(t, answering(), WithMeterProvider(metricnoop.NewMeterProvider()), WithTracerProvider(tracenoop.NewTracerProvider()))
					},
					"metrics": func(t *testing.T) *sql.DB {
						db, _ := metered(t, answering())
						return db
					},
					"metrics that are read": func(t *testing.T) *sql.DB {
						db, read := metered(t, answering())
						read()
						return db
					},
				} {
					ours := measure(open(t), tt.run)
					require.LessOrEqual(t, ours, pgxs+tt.extra, "%s: database/sql over pgx allocates %v times", name, pgxs)
				}
			})
		})
	}
}

// endless is a context that cannot end: for others pgx and database/sql start goroutines, and what those allocate depends
// on how they are scheduled.
var endless = context.Background()

// answering is a server whose queries give one row. An answer takes a moment: what takes no time has no duration to record.
func answering() *script.Server {
	return script.New(script.Serve(script.Script{
		Run: func(_ *script.Session, sql string) script.Result {
			time.Sleep(time.Microsecond)
			if strings.HasPrefix(sql, "select") {
				return script.Int8("1")
			}
			return script.Result{}
		},
		Columns: func(sql string) []script.Column {
			if strings.HasPrefix(sql, "select") {
				return []script.Column{{Name: "value", OID: 20}}
			}
			return nil
		},
	}))
}

// overPgx opens database/sql over pgx's own driver.
func overPgx(t *testing.T, s *script.Server) *sql.DB {
	t.Helper()
	t.Cleanup(s.Close)
	cfg, err := pgx.ParseConfig(scriptedDSN)
	require.NoError(t, err)
	s.Configure(&cfg.Config)
	db := sql.OpenDB(stdlib.GetConnector(*cfg))
	t.Cleanup(func() { _ = db.Close() })
	return db
}
