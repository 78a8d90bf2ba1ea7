package driver_test

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// poolSize is how many connections go stale at once.
const poolSize = 10

// fill opens poolSize connections and puts them all into the pool.
func fill(s *scene, db *sql.DB) {
	s.t.Helper()
	db.SetMaxOpenConns(poolSize)
	db.SetMaxIdleConns(poolSize)
	var conns []*sql.Conn
	for range poolSize {
		c, err := db.Conn(s.context())
		require.NoError(s.t, err)
		conns = append(conns, c)
	}
	for _, c := range conns {
		require.NoError(s.t, c.Close())
	}
	require.Equal(s.t, poolSize, db.Stats().Idle)
}

// uses are the calls of database/sql that take a connection from the pool.
var uses = map[string]func(context.Context, *sql.DB) error{
	"Exec": func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, insertRow)
		return err
	},
	"Exec with an argument": func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, insertRowArgs, 1)
		return err
	},
	"Query": func(ctx context.Context, db *sql.DB) error {
		return readAll(db.QueryContext(ctx, insertRow+" returning n"))
	},
	"Prepare": func(ctx context.Context, db *sql.DB) error {
		stmt, err := db.PrepareContext(ctx, insertRowArgs)
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx, 1)
		return err
	},
	"BeginTx": func(ctx context.Context, db *sql.DB) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, insertRow); err != nil {
			return err
		}
		return tx.Commit()
	},
	"Conn": func(ctx context.Context, db *sql.DB) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.ExecContext(ctx, insertRow)
		return err
	},
}

// ends are the ways in which idle connections come to their end.
var ends = map[string]func(*scene){
	"terminated": (*scene).terminate,
	"closed": func(s *scene) {
		s.proxy.CutAll(pgtest.Both, pgtest.FIN)
		s.gone()
	},
	"reset": func(s *scene) {
		s.proxy.CutAll(pgtest.Both, pgtest.RST)
		s.gone()
	},
}

func TestStaleConnectionsOfThePoolAreNobodysError(t *testing.T) {
	server := newServer(t)
	for end, kill := range ends {
		for use, call := range uses {
			t.Run(end+"/"+use, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				var evicted atomic.Int32
				db := s.openWith(s.dsn(), retrypg.WithHooks(retrypg.Hooks{Evicted: func(string) { evicted.Add(1) }}))
				fill(s, db)
				kill(s)
				useAll(s, db, call)
				require.Equal(t, poolSize, s.rows())
				require.Positive(t, evicted.Load())
			})
		}
	}
}

// useAll makes as many calls at once as there are connections in the pool.
func useAll(s *scene, db *sql.DB, call func(context.Context, *sql.DB) error) {
	s.t.Helper()
	errs := make([]error, poolSize)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = call(s.context(), db) })
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(s.t, err)
	}
}

// After a second of idleness checkout pings, as pgx does.
func TestStaleConnectionsAreNobodysErrorAfterASecondOfIdlenessEither(t *testing.T) {
	server := newServer(t)
	for end, kill := range ends {
		t.Run(end, func(t *testing.T) {
			s := newScene(t, server) // not parallel: the server has a hundred connections at most
			dbs := make(map[string]*sql.DB)
			for use := range uses {
				dbs[use] = s.open(ours)
				fill(s, dbs[use])
			}
			kill(s)
			time.Sleep(1100 * time.Millisecond) // the idle time is the subject
			for use, db := range dbs {
				useAll(s, db, uses[use])
			}
			require.Equal(t, poolSize*len(uses), s.rows())
		})
	}
}

// After a second of idleness a connection is pinged at its checkout, also where the kernel knows of nothing.
func TestConnectionThatVanishedWithoutAWordIsFoundByThePing(t *testing.T) {
	s := newScene(t, newServer(t))
	db := s.open(ours)
	s.warm(db)
	time.Sleep(1100 * time.Millisecond) // the idle time is the subject
	firstQuery := func(m pgtest.Message) bool { return m.Dir == pgtest.FromClient && m.Type == 'Q' }
	rule := s.proxy.OnMessage(firstQuery, pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	_, err := db.ExecContext(s.context(), insertRow)
	require.NoError(t, err)
	require.NoError(t, rule.Wait(s.context()), "the ping")
	require.Equal(t, 1, s.proxy.Stats().Seen(insertRow), "times sent")
	require.Equal(t, 1, s.rows())
}

// No round trip is spent on the look at a connection that was used a moment ago.
func TestHealthyConnectionIsNotPingedAtItsCheckout(t *testing.T) {
	s := newScene(t, newServer(t))
	db := s.open(ours)
	s.warm(db)
	for range 10 {
		began := time.Now()
		before := s.proxy.Stats().Messages(pgtest.FromClient, 'Q')
		for range 2 {
			_, err := db.ExecContext(s.context(), insertRow)
			require.NoError(t, err)
		}
		sent := s.proxy.Stats().Messages(pgtest.FromClient, 'Q') - before
		if time.Since(began) < time.Second { // else the machine was too busy to tell
			require.LessOrEqual(t, sent, 3, "two statements, and one ping if the connection had been idle before them")
			if sent == 2 {
				return
			}
		}
	}
	require.Fail(t, "every pair of statements came with a ping")
}

func TestServerRestartBetweenTwoStatementsIsNobodysError(t *testing.T) {
	leak.Check(t)
	c := pgt.New(t, pgtest.Options{})
	db, err := sql.Open(ours, c.DSN())
	require.NoError(t, err)
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err = db.ExecContext(ctx, "create table t (n int)")
	require.NoError(t, err)
	for name, restart := range map[string]func(context.Context) error{
		"fast":      c.Restart,
		"immediate": func(ctx context.Context) error { return startAgain(ctx, c, c.StopImmediate) },
		"kill":      func(ctx context.Context) error { return startAgain(ctx, c, c.Kill) },
	} {
		_, err = db.ExecContext(ctx, "truncate t")
		require.NoError(t, err, name)
		require.NoError(t, restart(ctx), name)
		_, err = db.ExecContext(ctx, insertRow)
		require.NoError(t, err, name)
		v, err := c.Value(ctx, "select count(*) from t")
		require.NoError(t, err)
		require.Equal(t, "1", v, name)
	}
}

func startAgain(ctx context.Context, c *pgtest.Cluster, stop func(context.Context) error) error {
	if err := stop(ctx); err != nil {
		return err
	}
	return c.Start(ctx)
}
