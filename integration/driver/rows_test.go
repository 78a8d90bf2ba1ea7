package driver_test

import (
	"database/sql"
	"database/sql/driver"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

func TestConnectionLostBetweenRowsIsTheErrorOfTheRows(t *testing.T) {
	server := newServer(t)
	const query = "select n, repeat('x', 100) from generate_series(1, 1000) n"
	for _, mode := range execModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			db := s.open(ours, "default_query_exec_mode="+mode)
			s.proxy.OnMessage(pgtest.Row(query, 500), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
			rows, err := db.QueryContext(s.context(), query)
			require.NoError(t, err)
			defer rows.Close()
			read := 0
			for rows.Next() {
				read++
			}
			require.Equal(t, 499, read)
			require.ErrorContains(t, rows.Err(), "EOF")
			require.NotErrorIs(t, rows.Err(), driver.ErrBadConn)
			require.Equal(t, retrypg.OutcomeUnknown, retrypg.Classify(rows.Err()).Outcome)
			require.Equal(t, 1, s.proxy.Stats().Seen(query), "times sent")
			require.NoError(t, db.PingContext(s.context()))
		})
	}
}

func TestPreparedStatementOutlivesItsConnection(t *testing.T) {
	server := newServer(t)
	for end, kill := range ends {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			db := s.open(ours)
			stmt, err := db.PrepareContext(s.context(), insertRowArgs)
			require.NoError(t, err)
			defer stmt.Close()
			_, err = stmt.ExecContext(s.context(), 1)
			require.NoError(t, err)
			kill(s)
			_, err = stmt.ExecContext(s.context(), 1)
			require.NoError(t, err)
			require.Equal(t, 2, s.rows())
		})
	}
}

// Nothing was sent on such a connection yet. A pool would take another one; here there is none to be taken.
func TestFirstStatementOnAPinnedConnectionThatWasLostNamesTheReason(t *testing.T) {
	server := newServer(t)
	for end, reason := range map[string]string{"terminated": "57P01", "closed": "EOF", "reset": "connection reset by peer"} {
		for _, call := range []string{"Exec", "BeginTx", "Prepare", "Ping"} {
			t.Run(end+"/"+call, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				conn, err := s.open(ours).Conn(s.context())
				require.NoError(t, err)
				defer conn.Close()
				ends[end](s)
				switch call {
				case "Exec":
					_, err = conn.ExecContext(s.context(), insertRow)
					if end == "terminated" { // the server says so, which proves that it did nothing
						require.NoError(t, err)
						require.Equal(t, 1, s.rows())
						return
					}
				case "BeginTx":
					var tx *sql.Tx
					if tx, err = conn.BeginTx(s.context(), nil); err == nil { // BEGIN waits for the first statement
						_, err = tx.ExecContext(s.context(), insertRow)
						_ = tx.Rollback() // the connection may be gone
						if err == nil {   // it was begun on another connection, which was as good
							require.NotEqual(t, "closed", end)
							return
						}
					}
				case "Prepare":
					var stmt *sql.Stmt
					if stmt, err = conn.PrepareContext(s.context(), insertRow); err == nil {
						defer stmt.Close()
					}
				case "Ping":
					err = conn.PingContext(s.context())
				}
				require.ErrorContains(t, err, reason)
				require.NotContains(t, err.Error(), "bad connection")
				require.Zero(t, s.rows())
			})
		}
	}
}
