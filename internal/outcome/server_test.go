package outcome

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

func TestMain(m *testing.M) { pgt.Main(m) }

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// begin begins a transaction as the driver does.
func begin(t *testing.T, conn *pgx.Conn, token *Token) *Question {
	t.Helper()
	ctx := t.Context()
	id, err := Read(ctx, conn.PgConn())
	require.NoError(t, err)
	v := VersionOf(conn.PgConn())
	sql := "begin; " + v.XIDQuery(false)
	if token != nil {
		token.Keep = orDefault(token.Keep, time.Hour)
		sql = "begin; " + v.TokenQuery(*token, true)
	}
	b, err := Begin(ctx, conn.PgConn(), sql, token != nil, &id)
	require.NoError(t, err)
	require.NotZero(t, b.XID)
	require.Equal(t, conn.PgConn().PID(), b.Server.PID)
	if token != nil {
		token.Begun, token.Database = b.Began, b.Database
	}
	return &Question{Server: b.Server, XID: b.XID, Token: token}
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func newTable(t *testing.T, conn *pgx.Conn) Table {
	t.Helper()
	table, ok := ParseTable("public.retrypg_ledger")
	require.True(t, ok)
	exec(t, conn, table.Create())
	return table
}

// settings are of sessions that ask, and must not change an answer.
var settings = []string{
	"",
	"set default_transaction_isolation = serializable",
	"set default_transaction_read_only = on",
	"set datestyle = 'German'; set timezone = 'Asia/Kathmandu'; set extra_float_digits = -3; set intervalstyle = 'iso_8601'",
	"create schema evil; create function evil.pg_current_xact_id() returns xid8 language sql as $$ select '1'::xid8 $$; set search_path = evil, pg_catalog",
}

func TestTheAnswerIsTrueWhateverTheSettingsOfTheSessionThatAsks(t *testing.T) {
	for _, setting := range settings {
		d := pgt.Shared(t)
		asking := connect(t, d.DSN())
		table := newTable(t, asking)
		exec(t, asking, setting)
		s := pgServer{asking.PgConn()}
		for _, withToken := range []bool{false, true} {
			for end, want := range map[string]status{"commit": statusCommitted, "rollback": statusAborted} {
				worker := connect(t, d.DSN())
				var token *Token
				if withToken {
					token = &Token{Table: table, ID: "01234567-89ab-4cde-8f01-23456789abcd"}
				}
				q := begin(t, worker, token)
				for range 2 {
					r, err := s.ask(t.Context(), q)
					require.NoError(t, err, setting)
					require.Equal(t, statusInProgress, r.status, setting)
				}
				exec(t, worker, end)
				for range 2 { // asking leaves nothing behind
					r, err := s.ask(t.Context(), q)
					require.NoError(t, err, setting)
					require.Equal(t, want, r.status, "%s, %s, token %v", setting, end, withToken)
					require.True(t, q.same(r), "%+v %+v", q.Server, r.server)
				}
				if withToken {
					var n int
					require.NoError(t, worker.QueryRow(t.Context(), "select count(*) from public.retrypg_ledger").Scan(&n))
					require.Equal(t, map[status]int{statusCommitted: 1, statusAborted: 0}[want], n)
					exec(t, worker, "truncate public.retrypg_ledger")
				}
			}
		}
	}
}

func TestIdsOfTheFutureAndOfThePastAreTold(t *testing.T) {
	conn := connect(t, pgt.Shared(t).DSN())
	q := begin(t, conn, nil)
	exec(t, conn, "commit")
	s := pgServer{conn.PgConn()}
	q.XID += 1000
	r, err := s.ask(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, statusFuture, r.status)
	require.True(t, q.same(r))
}

func TestWithoutATableOrRightsTheQuestionIsHopeless(t *testing.T) {
	d := pgt.Shared(t)
	conn := connect(t, d.DSN())
	table, _ := ParseTable("public.retrypg_ledger")
	q := &Question{Token: &Token{Table: table, ID: "01234567-89ab-4cde-8f01-23456789abcd", Keep: time.Hour, Database: d.Name}}
	_, err := pgServer{conn.PgConn()}.ask(t.Context(), q)
	require.True(t, hopeless(err), "%v", err)
	newTable(t, conn)
	exec(t, conn, "drop role if exists stranger; create role stranger login")
	defer exec(t, conn, "drop role stranger")
	stranger := connect(t, d.DSN("user=stranger"))
	_, err = pgServer{stranger.PgConn()}.ask(t.Context(), q)
	require.True(t, hopeless(err), "%v", err)
	require.Equal(t, byte('I'), stranger.PgConn().TxStatus(), "the connection can ask again")

	worker := connect(t, d.DSN())
	mine := begin(t, worker, nil)
	r, err := pgServer{stranger.PgConn()}.ask(t.Context(), mine)
	require.NoError(t, err, "ids can be asked about by everybody")
	require.Equal(t, statusInProgress, r.status)
	_, _, err = pgServer{stranger.PgConn()}.fence(t.Context(), mine, true)
	require.Equal(t, "42501", code(err))
	_ = stranger.Close(t.Context())
}

func TestAFenceHitsOnlyTheProcessThatStillHasTheTransaction(t *testing.T) {
	d := pgt.Shared(t)
	worker, s := connect(t, d.DSN()), pgServer{connect(t, d.DSN()).PgConn()}
	ctx := t.Context()
	q := begin(t, worker, nil)
	for _, other := range []Question{
		{XID: q.XID + 1, Server: q.Server},
		{XID: q.XID, Server: Identity{PID: q.Server.PID + 1}},
	} {
		fenced, _, err := s.fence(ctx, &other, true)
		require.NoError(t, err)
		require.False(t, fenced)
	}
	exec(t, worker, "commit")
	fenced, _, err := s.fence(ctx, q, true)
	require.NoError(t, err)
	require.False(t, fenced, "it has no transaction any more")

	q = begin(t, worker, nil)
	fenced, unreplicated, err := s.fence(ctx, q, false)
	require.NoError(t, err)
	require.True(t, fenced, "it is idle in its transaction")
	require.False(t, unreplicated)
	_, err = worker.Exec(ctx, "commit")
	require.Error(t, err)
	require.Eventually(t, func() bool {
		r, err := s.ask(ctx, q)
		return err == nil && r.status == statusAborted
	}, 10*time.Second, time.Millisecond)
}

func TestABusyProcessIsFencedOnlyWhenThatIsAsked(t *testing.T) {
	d := pgt.Shared(t)
	worker, watch := connect(t, d.DSN()), connect(t, d.DSN())
	s := pgServer{watch.PgConn()}
	q := begin(t, worker, nil)
	done := make(chan error, 1)
	go func() {
		_, err := worker.Exec(context.Background(), "select pg_sleep(300)")
		done <- err
	}()
	require.Eventually(t, func() bool {
		var busy bool
		err := watch.QueryRow(t.Context(), "select exists (select from pg_stat_activity where pid = $1 and wait_event = 'PgSleep')", q.Server.PID).Scan(&busy)
		return err == nil && busy
	}, 10*time.Second, time.Millisecond)
	fenced, _, err := s.fence(t.Context(), q, false)
	require.NoError(t, err)
	require.False(t, fenced)
	fenced, _, err = s.fence(t.Context(), q, true)
	require.NoError(t, err)
	require.True(t, fenced)
	var pgErr *pgconn.PgError
	require.True(t, errors.As(<-done, &pgErr))
	require.Equal(t, "57P01", pgErr.Code)
}

// TestAFenceSaysWhetherTheTransactionMayHaveBegunToWaitForAStandby: it was busy, and there is one to wait for.
func TestAFenceSaysWhetherTheTransactionMayHaveBegunToWaitForAStandby(t *testing.T) {
	server := pgt.New(t, pgtest.Options{})
	admin := connect(t, server.DSN())
	for _, standbys := range []string{"", "somebody"} {
		require.NoError(t, server.Set(t.Context(), "synchronous_standby_names", standbys))
		require.NoError(t, server.WaitUntil(t.Context(), "current_setting('synchronous_standby_names') = '"+standbys+"'"))
		worker := connect(t, server.DSN())
		q := begin(t, worker, nil)
		done := make(chan error, 1)
		go func() {
			_, err := worker.Exec(context.Background(), "select pg_sleep(60)")
			done <- err
		}()
		require.NoError(t, server.WaitUntil(t.Context(), "exists (select from pg_stat_activity where wait_event = 'PgSleep')"))
		var shown string // the connection that asks knows of the setting too
		require.Eventually(t, func() bool {
			return admin.QueryRow(t.Context(), "show synchronous_standby_names").Scan(&shown) == nil && shown == standbys
		}, 10*time.Second, time.Millisecond)
		fenced, unreplicated, err := pgServer{admin.PgConn()}.fence(t.Context(), q, true)
		require.NoError(t, err)
		require.True(t, fenced)
		require.Equal(t, standbys != "", unreplicated)
		require.Error(t, <-done)
	}
}

func TestCleanUpTakesOnlyWhatIsOlderAndNotLockedAndNoMoreThanItMay(t *testing.T) {
	conn := connect(t, pgt.Shared(t).DSN())
	table := newTable(t, conn)
	exec(t, conn, `insert into public.retrypg_ledger select (extract(epoch from now() - i * interval '1 minute') * 1000000)::bigint, 60000000, gen_random_uuid()
		from generate_series(1, 100) i`)
	rows := func() (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from public.retrypg_ledger").Scan(&n))
		return n
	}
	exec(t, conn, table.CleanUp(30*time.Minute+30*time.Second, 10, time.Second))
	require.Equal(t, 90, rows())
	other := connect(t, conn.Config().ConnString())
	exec(t, other, "begin; select from public.retrypg_ledger order by begun limit 5 for update")
	exec(t, conn, table.CleanUp(30*time.Minute+30*time.Second, 1000, time.Second))
	require.Equal(t, 35, rows(), "30 young ones and 5 that are locked")
	exec(t, other, "rollback")
	exec(t, conn, "update public.retrypg_ledger set keep = 7200000000")
	exec(t, conn, table.CleanUp(time.Minute, 1000, time.Second))
	require.Equal(t, 35, rows(), "who keeps them for a minute leaves those alone that others keep for two hours")
}

// TestATokenOfAnotherDatabaseIsNotMissing: each database has a ledger of its own, or none.
func TestATokenOfAnotherDatabaseIsNotMissing(t *testing.T) {
	here, elsewhere := connect(t, pgt.Shared(t).DSN()), connect(t, pgt.Shared(t).DSN())
	q := begin(t, here, &Token{Table: newTable(t, here), ID: "01234567-89ab-4cde-8f01-23456789abcd"})
	exec(t, here, "commit")
	q.XID = 0 // or it would not be looked for
	for _, prepare := range []string{"select 1", Table{schema: "public", name: "retrypg_ledger"}.Create()} {
		exec(t, elsewhere, prepare)
		r, err := pgServer{elsewhere.PgConn()}.ask(t.Context(), q)
		require.NoError(t, err)
		answer, next := q.judge(r)
		require.Equal(t, Unknown, answer.Verdict)
		require.Equal(t, decided, next)
		require.Contains(t, answer.Reason, "another one")
	}
	r, err := pgServer{here.PgConn()}.ask(t.Context(), q)
	require.NoError(t, err)
	answer, _ := q.judge(r)
	require.Equal(t, Committed, answer.Verdict)
}

// TestAMissingTokenProvesNothingOnceItMayHaveBeenCleanedUp, by the time for which it was to be kept.
func TestAMissingTokenProvesNothingOnceItMayHaveBeenCleanedUp(t *testing.T) {
	conn := connect(t, pgt.Shared(t).DSN())
	table := newTable(t, conn)
	for _, tc := range []struct {
		age, keep time.Duration
		want      status
	}{
		{29 * time.Minute, time.Hour, statusAborted},
		{31 * time.Minute, time.Hour, statusExpired},
		{31 * time.Minute, 2 * time.Hour, statusAborted},
		{-time.Minute, time.Hour, statusAborted}, // the clock of another server
	} {
		q := begin(t, conn, &Token{Table: table, ID: "01234567-89ab-4cde-8f01-23456789abcd", Keep: tc.keep})
		exec(t, conn, "rollback")
		q.XID = 0
		q.Token.Begun -= tc.age.Microseconds()
		r, err := pgServer{conn.PgConn()}.ask(t.Context(), q)
		require.NoError(t, err)
		require.True(t, r.byToken)
		require.Equal(t, tc.want, r.status, "%+v", tc)
	}
}

// TestTheIdIsAskedForBeforeTheToken: only what that leaves open needs the claim, which others have to wait for.
func TestTheIdIsAskedForBeforeTheToken(t *testing.T) {
	conn := connect(t, pgt.Shared(t).DSN())
	q := begin(t, conn, &Token{Table: newTable(t, conn), ID: "01234567-89ab-4cde-8f01-23456789abcd"})
	exec(t, conn, "commit")
	r, err := pgServer{conn.PgConn()}.ask(t.Context(), q)
	require.NoError(t, err)
	require.False(t, r.byToken)
	require.Equal(t, statusCommitted, r.status)
	q.Server.Epoch = Epoch{Started: "1", Replayed: "2"} // it has crashed since
	r, err = pgServer{conn.PgConn()}.ask(t.Context(), q)
	require.NoError(t, err)
	require.True(t, r.byToken)
	require.Equal(t, statusCommitted, r.status)
}

func TestAHotStandbyDoesNotAnswer(t *testing.T) {
	primary := pgt.New(t, pgtest.Options{})
	conn := connect(t, primary.DSN())
	table := newTable(t, conn)
	token := &Token{Table: table, ID: "01234567-89ab-4cde-8f01-23456789abcd"}
	byToken := begin(t, conn, token)
	exec(t, conn, "commit")
	byID := begin(t, conn, nil)
	exec(t, conn, "commit")
	standby := pgt.Standby(t, primary, pgtest.Options{})
	require.NoError(t, standby.WaitReplayed(t.Context(), primary))
	replica := connect(t, standby.DSN())
	id, err := Read(t.Context(), replica.PgConn())
	require.NoError(t, err)
	require.True(t, id.Standby)
	require.Zero(t, id.Timeline)
	for _, q := range []*Question{byToken, byID} {
		r, err := pgServer{replica.PgConn()}.ask(t.Context(), q)
		require.NoError(t, err)
		a, next := q.judge(r)
		require.Equal(t, Unknown, a.Verdict)
		require.Equal(t, askOthers, next)
		require.True(t, strings.Contains(a.Reason, "standby"), a.Reason)
	}
	b, err := Begin(t.Context(), replica.PgConn(), "begin; "+VersionOf(replica.PgConn()).XIDQuery(true), false, &id)
	require.NoError(t, err)
	require.Zero(t, b.XID, "behind a pooler that leads to a standby")
	require.True(t, b.Server.Standby)
}
