package piggyback

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

// connect returns a connection of pgx and the Conn below it.
func connect(t *testing.T, dsn string) (*pgconn.PgConn, *Conn) {
	t.Helper()
	return connectWith(t, dsn, nil)
}

func connectWith(t *testing.T, dsn string, notified pgconn.NotificationHandler) (*pgconn.PgConn, *Conn) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	require.NoError(t, err)
	cfg.OnNotification = notified
	var c *Conn
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c = New(r, w)
		return pgproto3.NewFrontend(c, c)
	}
	pc, err := pgconn.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pc.Close(context.Background()) })
	return pc, c
}

// What travels to a real server.
var (
	beginReal    = encode(statement("begin")...)
	refusedReal  = encode(statement("begin isolation level none")...)
	questionReal = encode(statement("select pg_catalog.pg_current_xact_id(), null, 'x'")...)
)

const insert = "insert into t values ('x')"

// flightsOfPgx are the ways in which pgx sends statements through its Frontend. Each runs insert once, or ends before it.
var flightsOfPgx = []struct {
	name string
	asks bool // the question travels with it
	run  func(ctx context.Context, pc *pgconn.PgConn) error
}{
	{"Exec", true, func(ctx context.Context, pc *pgconn.PgConn) error {
		_, err := pc.Exec(ctx, insert).ReadAll()
		return err
	}},
	{"Exec of several statements", true, func(ctx context.Context, pc *pgconn.PgConn) error {
		_, err := pc.Exec(ctx, "select 1; "+insert+"; select generate_series(1, 3000)").ReadAll()
		return err
	}},
	{"ExecParams", true, func(ctx context.Context, pc *pgconn.PgConn) error {
		return pc.ExecParams(ctx, "insert into t values ($1)", [][]byte{[]byte("x")}, nil, nil, nil).Read().Err
	}},
	{"Prepare and ExecPrepared", true, func(ctx context.Context, pc *pgconn.PgConn) error {
		if _, err := pc.Prepare(ctx, "s", insert, nil); err != nil {
			return err
		}
		return pc.ExecPrepared(ctx, "s", nil, nil, nil).Read().Err
	}},
	{"Prepare and ExecStatement without a name", true, func(ctx context.Context, pc *pgconn.PgConn) error {
		d, err := pc.Prepare(ctx, "", insert, nil)
		if err != nil {
			return err
		}
		return pc.ExecStatement(ctx, d, nil, nil, nil).Read().Err
	}},
	{"a pipeline", true, func(ctx context.Context, pc *pgconn.PgConn) error {
		p := pc.StartPipeline(ctx)
		p.SendQueryParams("select generate_series(1, 3000)", nil, nil, nil, nil)
		p.SendQueryParams(insert, nil, nil, nil, nil)
		if err := p.Sync(); err != nil {
			return err
		}
		return p.Close()
	}},
	{"a pipeline that is flushed", false, func(ctx context.Context, pc *pgconn.PgConn) error {
		p := pc.StartPipeline(ctx)
		p.SendQueryParams(insert, nil, nil, nil, nil)
		p.SendFlushRequest()
		err := p.Flush()
		if err == nil {
			_, err = p.GetResults()
		}
		if e := p.Sync(); err == nil {
			err = e
		}
		if e := p.Close(); err == nil {
			err = e
		}
		return err
	}},
	{"CopyFrom", false, func(ctx context.Context, pc *pgconn.PgConn) error {
		_, err := pc.CopyFrom(ctx, strings.NewReader("x\n"), "copy t from stdin")
		return err
	}},
	{"CopyTo", false, func(ctx context.Context, pc *pgconn.PgConn) error {
		_, err := pc.CopyTo(ctx, io.Discard, "copy (select generate_series(1, 3000)) to stdout")
		if err == nil {
			_, err = pc.Exec(ctx, insert).ReadAll()
		}
		return err
	}},
	{"Deallocate", false, func(ctx context.Context, pc *pgconn.PgConn) error {
		err := pc.Deallocate(ctx, "none")
		if err == nil {
			_, err = pc.Exec(ctx, insert).ReadAll()
		}
		return err
	}},
	{"Ping", false, func(ctx context.Context, pc *pgconn.PgConn) error {
		err := pc.Ping(ctx)
		if err == nil {
			_, err = pc.Exec(ctx, insert).ReadAll()
		}
		return err
	}},
}

func rowsOf(t *testing.T, pc *pgconn.PgConn) string {
	t.Helper()
	results, err := pc.Exec(t.Context(), "select count(*) from t").ReadAll()
	require.NoError(t, err)
	return string(results[0].Rows[0][0])
}

func eachFlightOfPgx(t *testing.T, dsn string) {
	admin, _ := connect(t, dsn)
	_, err := admin.Exec(t.Context(), "drop table if exists t; create table t (v text)").ReadAll()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), pgt.Timeout)
	defer cancel()
	for _, k := range flightsOfPgx {
		t.Run(k.name, func(t *testing.T) {
			for _, single := range []bool{false, true} {
				pc, c := connect(t, dsn)
				c.Begin(beginReal, single)
				if k.asks {
					c.Behind(questionReal)
				}
				require.NoError(t, k.run(ctx, pc))
				require.Equal(t, byte('T'), pc.TxStatus())
				require.Equal(t, byte('T'), c.Status(pc.TxStatus()))
				require.Equal(t, "1", rowsOf(t, pc))
				require.Equal(t, "0", rowsOf(t, admin))
				if answer, values := c.Answer(); k.asks {
					require.Equal(t, Answered, answer)
					require.Len(t, values, 3)
					results, err := pc.Exec(ctx, "select pg_current_xact_id()").ReadAll()
					require.NoError(t, err)
					require.Equal(t, string(results[0].Rows[0][0]), string(values[0]), "the id of this transaction")
				}
				_, err := pc.Exec(ctx, "rollback").ReadAll()
				require.NoError(t, err)
				require.Equal(t, "0", rowsOf(t, pc))
				require.NoError(t, pc.SyncConn(ctx))

				require.NoError(t, pc.Deallocate(ctx, "s"))
				c.Begin(refusedReal, single)
				if k.asks {
					c.Behind(questionReal)
				}
				var pgErr *pgconn.PgError
				require.ErrorAs(t, k.run(ctx, pc), &pgErr)
				require.Contains(t, pgErr.Message, "syntax error")
				require.True(t, c.Refused())
				require.False(t, pc.IsClosed())
				require.Equal(t, byte('I'), pc.TxStatus())
				require.Equal(t, byte('E'), c.Status(pc.TxStatus()))
				require.Equal(t, "0", rowsOf(t, admin), "nothing was run outside of a transaction")
				require.NoError(t, pc.SyncConn(ctx))
				require.Equal(t, "0", rowsOf(t, pc), "the connection can be used on")
			}
		})
	}
}

func TestEveryFlightOfPgxCarriesBeginToAServer(t *testing.T) {
	eachFlightOfPgx(t, pgt.Shared(t).DSN())
}

func TestEveryFlightOfPgxCarriesBeginToAServerOverTLS(t *testing.T) {
	c := pgt.New(t, pgtest.Options{TLS: true})
	eachFlightOfPgx(t, c.DSN("sslmode=verify-full", "sslrootcert="+c.CertFile()))
}

// A pipeline whose second part would be run although BEGIN was refused.
func TestAPipelineOfSeveralSyncsIsNotRunWhereTheServerRefusesBegin(t *testing.T) {
	dsn := pgt.Shared(t).DSN()
	for _, flushes := range []bool{false, true} {
		pc, c := connect(t, dsn)
		_, err := pc.Exec(t.Context(), "create table if not exists t (v text)").ReadAll()
		require.NoError(t, err)
		c.Begin(refusedReal, false)
		p := pc.StartPipeline(t.Context())
		for range 2 {
			p.SendQueryParams(insert, nil, nil, nil, nil)
			if flushes {
				if err = p.Sync(); err != nil {
					break
				}
			} else {
				p.SendPipelineSync()
			}
		}
		if err == nil {
			err = p.Flush()
		}
		require.ErrorIs(t, err, errRefused)
		require.ErrorIs(t, p.Close(), errRefused)
		admin, _ := connect(t, dsn)
		require.Equal(t, "0", rowsOf(t, admin))
		<-pc.CleanupDone()
	}
}

// A COPY of which the rows do not fit into what the network buffers is written while the server has refused it already.
func TestALongCopyEndsWhereTheServerRefusesBegin(t *testing.T) {
	dsn := pgt.Shared(t).DSN()
	pc, c := connect(t, dsn)
	_, err := pc.Exec(t.Context(), "create table t (v text)").ReadAll()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), pgt.Timeout)
	defer cancel()
	for _, begin := range [][]byte{refusedReal, beginReal} {
		c.Begin(begin, false)
		rows := bytes.Repeat([]byte(strings.Repeat("y", 1000)+"\n"), 30_000)
		tag, err := pc.CopyFrom(ctx, bytes.NewReader(rows), "copy t from stdin")
		if c.Refused() {
			require.ErrorContains(t, err, "syntax error")
			require.Equal(t, "0", rowsOf(t, pc))
			continue
		}
		require.NoError(t, err)
		require.EqualValues(t, 30_000, tag.RowsAffected())
		require.Equal(t, byte('T'), c.Status(pc.TxStatus()))
	}
}

// A listener that has read the first part of a notification begins a transaction.
func TestATransactionBeginsInTheMiddleOfTheNotificationsOfAServer(t *testing.T) {
	dsn := pgt.Shared(t).DSN()
	got := 0
	pc, c := connectWith(t, dsn, func(*pgconn.PgConn, *pgconn.Notification) { got++ })
	admin, _ := connect(t, dsn)
	ctx, cancel := context.WithTimeout(t.Context(), pgt.Timeout)
	defer cancel()
	_, err := pc.Exec(ctx, "listen c").ReadAll()
	require.NoError(t, err)
	_, err = admin.Exec(ctx, "select pg_notify('c', repeat('x', 5000) || i) from generate_series(1, 20) i").ReadAll()
	require.NoError(t, err)
	require.NoError(t, pc.WaitForNotification(ctx)) // and the first part of the next one, behind it
	for range 3 {
		c.Begin(beginReal, false)
		c.Behind(questionReal)
		_, err = pc.Exec(ctx, "select 1").ReadAll()
		require.NoError(t, err)
		answer, _ := c.Answer()
		require.Equal(t, Answered, answer)
		_, err = pc.Exec(ctx, "rollback").ReadAll()
		require.NoError(t, err)
	}
	for got < 20 {
		require.NoError(t, pc.WaitForNotification(ctx))
	}
}

func TestADeadlineOfTheUserLeavesTheAnswersWhereTheyAre(t *testing.T) {
	pc, c := connect(t, pgt.Shared(t).DSN())
	c.Begin(beginReal, false)
	c.Behind(questionReal)
	f := pc.Frontend()
	f.SendQuery(&pgproto3.Query{String: "select pg_sleep(0.2)"})
	require.NoError(t, f.Flush())
	var seen string
	for !strings.HasSuffix(seen, "Z") {
		require.NoError(t, pc.Conn().SetReadDeadline(time.Now().Add(5*time.Millisecond)))
		switch m, err := f.Receive(); m.(type) {
		case nil:
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		case *pgproto3.RowDescription:
			seen += "T"
		case *pgproto3.DataRow:
			seen += "D"
		case *pgproto3.CommandComplete:
			seen += "C"
		case *pgproto3.ReadyForQuery:
			seen += "Z"
		default:
			t.Fatalf("%T", m)
		}
	}
	require.Equal(t, "TDCZ", seen)
	answer, values := c.Answer()
	require.Equal(t, Answered, answer)
	require.Len(t, values, 3)
}
