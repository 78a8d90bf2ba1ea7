package audit_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/audit"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// stage is a database with a table of entries.
type stage struct {
	t    *testing.T
	dsn  string
	db   *sql.DB
	conn *pgx.Conn // plain pgx
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, dsn: pgt.Shared(t).DSN()}
	leak.Check(t)
	var err error
	s.db, err = retrypg.OpenDB(s.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.db.Close() })
	s.conn, err = pgx.Connect(t.Context(), s.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.conn.Close(context.Background()) })
	s.do(audit.Schema)
	return s
}

func (s *stage) do(statement string, args ...any) {
	s.t.Helper()
	_, err := s.conn.Exec(s.t.Context(), statement, args...)
	require.NoError(s.t, err)
}

// insert writes an entry.
func (s *stage) insert(ctx context.Context, id string) error {
	return audit.ExecTx(ctx, s.db, retrypg.TxOptions{}, audit.Insert, id)
}

// trigger lets the server run a function at every entry whose id is 2.
func (s *stage) trigger(when, body string) {
	s.t.Helper()
	s.do(fmt.Sprintf(`create function meddle() returns trigger language plpgsql as $$ begin %s end $$;
		create trigger meddle %s insert on entry for each row when (new.id = '2' and pg_trigger_depth() = 0) execute function meddle()`, body, when))
}

// write writes three entries, and returns what the audit says of them.
func (s *stage) write(r *audit.Record, write func(ctx context.Context, id string) error) *audit.Report {
	s.t.Helper()
	for range 3 {
		_ = r.Write(s.t.Context(), write) // it is noted
	}
	return s.audit(r)
}

func (s *stage) audit(r *audit.Record) *audit.Report {
	s.t.Helper()
	return r.Compare(audit.CountAt(s.t.Context(), s.t, s.dsn, audit.Table))
}

// ids returns the ids of entries.
func ids(entries []audit.Entry) []string {
	found := []string{}
	for _, e := range entries {
		found = append(found, e.ID)
	}
	return found
}

// finds requires that a report has these entries in its lists, and that a test fails by it if there are any.
func finds(t *testing.T, r *audit.Report, lost, duplicated, untrue, foreign []string) {
	t.Helper()
	require.ElementsMatch(t, lost, ids(r.Lost), "lost")
	require.ElementsMatch(t, duplicated, ids(r.Duplicated), "duplicated")
	require.ElementsMatch(t, untrue, ids(r.Untrue), "untrue")
	require.ElementsMatch(t, foreign, ids(r.Foreign), "foreign")
	wrong := len(lost) + len(duplicated) + len(untrue) + len(foreign)
	require.Len(t, r.Wrong(), wrong)
	failing := &failing{TB: t}
	r.Check(failing)
	require.Equal(t, wrong > 0, failing.failed)
}

// failing is a test that notes its failure.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Errorf(format string, args ...any) {
	f.failed = true
	f.Logf(format, args...)
}

func TestEntriesThatAreAsToldAreSound(t *testing.T) {
	s := newStage(t)
	report := s.write(audit.New(audit.OfTransaction), s.insert)
	finds(t, report, nil, nil, nil, nil)
	require.Equal(t, []string{"1", "2", "3"}, ids(report.Of(audit.OK)))
	require.Equal(t, "told: 3 ok, 0 not applied, 0 unknown (of which 0 are there)", report.String())
}

func TestAnEntryThatTheServerDidNotKeepIsLost(t *testing.T) {
	s := newStage(t)
	s.trigger("before", "return null;")
	finds(t, s.write(audit.New(audit.OfTransaction), s.insert), []string{"2"}, nil, nil, nil)
}

func TestAnEntryThatIsThereTwiceIsDuplicated(t *testing.T) {
	s := newStage(t)
	s.trigger("before", "insert into entry values (new.id); return new;")
	finds(t, s.write(audit.New(audit.OfTransaction), s.insert), nil, []string{"2"}, nil, nil)
}

// TestAnEntryThatIsThereAlthoughItWasToldNotToBeIsUntrue: or duplicated, where it is there twice.
func TestAnEntryThatIsThereAlthoughItWasToldNotToBeIsUntrue(t *testing.T) {
	s := newStage(t)
	s.trigger("before", "insert into entry values (new.id); return new;")
	report := s.write(audit.New(audit.OfTransaction), func(ctx context.Context, id string) error {
		return errors.Join(s.insert(ctx, id), errors.New("not applied"))
	})
	finds(t, report, nil, []string{"2"}, []string{"1", "3"}, nil)
	require.Len(t, report.Errors(), 3)
}

func TestAnEntryOfWhichNobodyWasToldIsForeign(t *testing.T) {
	s := newStage(t)
	s.do(audit.Insert, "stranger")
	finds(t, s.write(audit.New(audit.OfTransaction), s.insert), nil, nil, nil, []string{"stranger"})
}

// TestAnUnknownEntryMayBeThereOnceOrNotAtAll: but not twice.
func TestAnUnknownEntryMayBeThereOnceOrNotAtAll(t *testing.T) {
	s := newStage(t)
	r := audit.New(audit.OfTransaction)
	for i, id := range []string{"none", "once", "twice"} {
		for range i {
			s.do(audit.Insert, id)
		}
		r.Note(id, &retrypg.CommitUnknownError{Err: errors.New("lost")})
	}
	report := s.audit(r)
	finds(t, report, nil, []string{"twice"}, nil, nil)
	require.Equal(t, "told: 0 ok, 0 not applied, 3 unknown (of which 3 are there)", report.String())
}

// TestAnErrorOfTheServerIsReadByItsOutcome: a deadline says nothing of a statement, and everything of a transaction.
func TestAnErrorOfTheServerIsReadByItsOutcome(t *testing.T) {
	s := newStage(t)
	_, refused := s.conn.Exec(t.Context(), "insert into entry values (null)")
	require.Error(t, refused)
	for _, c := range []struct {
		err                    error
		statement, transaction audit.Told
	}{
		{nil, audit.OK, audit.OK},
		{refused, audit.NotApplied, audit.NotApplied},
		{context.DeadlineExceeded, audit.Unknown, audit.NotApplied},
		{&retrypg.CommitUnknownError{Err: context.DeadlineExceeded}, audit.Unknown, audit.Unknown},
	} {
		require.Equal(t, c.statement, audit.OfStatement(c.err), "%v", c.err)
		require.Equal(t, c.transaction, audit.OfTransaction(c.err), "%v", c.err)
	}
}

func TestCallersWriteUntilTheyAreStopped(t *testing.T) {
	s := newStage(t)
	r := audit.New(audit.OfTransaction)
	stop := r.Start(t.Context(), 3, s.insert)
	require.NoError(t, r.Await(t.Context(), 10, audit.OK))
	stop()
	stop()
	report := s.audit(r)
	finds(t, report, nil, nil, nil, nil)
	require.GreaterOrEqual(t, len(report.Entries), 10)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.Await(over, 1, audit.OK), context.Canceled, "nobody writes any more")
	require.NoError(t, r.Await(over, 0, audit.OK))
}
