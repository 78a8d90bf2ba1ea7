package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/sqlstate"
	"github.com/retrypg/retrypg/policy"
)

func TestEveryListedCodeIsClassifiedAsInTheTable(t *testing.T) {
	rows := sqlstate.Entries()
	require.Len(t, rows, 264)
	for _, row := range rows {
		want := Class{Retry: Retry(row.Retry), Outcome: Outcome(row.Outcome), SQLState: row.Code, Reason: row.Name}
		err := &pgconn.PgError{Code: row.Code, Severity: "ERROR", Routine: "x"}
		require.Equal(t, want, Classify(err), row.Code)
		require.Equal(t, want, Classify(fmt.Errorf("insert: %w", err)), row.Code)
		require.Equal(t, row.Code, SQLState(err))

		err.SeverityUnlocalized, err.Severity = "ERROR", "FEHLER"
		require.Equal(t, want, Classify(err), "%s: the localised severity must not count", row.Code)
	}
}

func TestNumbersOfTheTableAreThoseOfThePackage(t *testing.T) {
	require.Equal(t, [...]Retry{RetryNever, RetryStatement, RetryTransaction, RetryReconnect, RetryWait, RetryFailover}, [...]Retry{
		Retry(sqlstate.Never), Retry(sqlstate.Statement), Retry(sqlstate.Transaction), Retry(sqlstate.Reconnect),
		Retry(sqlstate.Wait), Retry(sqlstate.Failover),
	})
	require.Equal(t, [...]Outcome{OutcomeUnknown, OutcomeNotStarted, OutcomeRolledBack, OutcomeCommitted}, [...]Outcome{
		Outcome(sqlstate.Unknown), Outcome(sqlstate.NotStarted), Outcome(sqlstate.RolledBack), Outcome(sqlstate.Committed),
	})
}

func TestWordsForRetryAndOutcome(t *testing.T) {
	for i, want := range []string{"never", "statement", "transaction", "reconnect", "wait", "failover", "invalid"} {
		require.Equal(t, want, Retry(i).String())
	}
	for i, want := range []string{"unknown", "not_started", "rolled_back", "committed", "invalid"} {
		require.Equal(t, want, Outcome(i).String())
	}
}

func TestSeverityAndRoutineRefineTheCode(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     pgconn.PgError
		retry   Retry
		outcome Outcome
	}{
		{"session terminated", pgconn.PgError{Severity: "FATAL", Code: "57P01", Routine: "ProcessInterrupts"}, RetryReconnect, OutcomeRolledBack},
		{"postmaster gone", pgconn.PgError{Severity: "FATAL", Code: "57P01", Routine: "secure_read"}, RetryReconnect, OutcomeRolledBack},
		{"a proxy says terminated", pgconn.PgError{Severity: "FATAL", Code: "57P01"}, RetryReconnect, OutcomeUnknown},
		{"terminated as a warning", pgconn.PgError{Severity: "WARNING", Code: "57P01", Routine: "SyncRepWaitForLSN"}, RetryReconnect, OutcomeUnknown},
		{"quickdie", pgconn.PgError{Severity: "WARNING", Code: "57P02", Routine: "quickdie"}, RetryReconnect, OutcomeUnknown},
		{"idle in transaction", pgconn.PgError{Severity: "FATAL", Code: "25P03", Routine: "ProcessInterrupts"}, RetryReconnect, OutcomeRolledBack},
		{"idle in transaction, proxy", pgconn.PgError{Severity: "FATAL", Code: "25P03"}, RetryReconnect, OutcomeUnknown},
		{"transaction_timeout", pgconn.PgError{Severity: "FATAL", Code: "25P04", Routine: "ProcessInterrupts"}, RetryNever, OutcomeRolledBack},
		{"idle session", pgconn.PgError{Severity: "FATAL", Code: "57P05", Routine: "ProcessInterrupts"}, RetryReconnect, OutcomeNotStarted},
		{"idle session, proxy", pgconn.PgError{Severity: "FATAL", Code: "57P05"}, RetryReconnect, OutcomeUnknown},
		{"database dropped", pgconn.PgError{Severity: "FATAL", Code: "57P04", Routine: "ProcessInterrupts"}, RetryNever, OutcomeRolledBack},
		{"recovery conflict", pgconn.PgError{Severity: "FATAL", Code: "40001", Routine: "ProcessInterrupts"}, RetryReconnect, OutcomeRolledBack},
		{"conflict", pgconn.PgError{Severity: "ERROR", Code: "40001", Routine: "ExecUpdate"}, RetryTransaction, OutcomeRolledBack},
		{"conflict, no routine", pgconn.PgError{Severity: "ERROR", Code: "40001"}, RetryTransaction, OutcomeRolledBack},
		{"conflict, nothing but a code", pgconn.PgError{Code: "40P01"}, RetryTransaction, OutcomeRolledBack},
		{"conflict from a dying proxy", pgconn.PgError{Severity: "FATAL", Code: "40001"}, RetryReconnect, OutcomeUnknown},
		{"deadlock panic", pgconn.PgError{Severity: "PANIC", Code: "40P01", Routine: "x"}, RetryReconnect, OutcomeUnknown},
		{"wal full", pgconn.PgError{Severity: "PANIC", Code: "53100", Routine: "XLogWrite"}, RetryReconnect, OutcomeUnknown},
		{"out of memory, fatal", pgconn.PgError{Severity: "FATAL", Code: "53200", Routine: "x"}, RetryReconnect, OutcomeUnknown},
		{"too many connections", pgconn.PgError{Severity: "FATAL", Code: "53300", Routine: "InitProcess"}, RetryWait, OutcomeNotStarted},
		{"constraint without routine", pgconn.PgError{Severity: "ERROR", Code: "23505"}, RetryNever, OutcomeRolledBack},
		{"lock timeout without routine", pgconn.PgError{Severity: "ERROR", Code: "55P03"}, RetryTransaction, OutcomeUnknown},
		{"unknown word for the severity", pgconn.PgError{Severity: "FEHLER", Code: "57014", Routine: "ProcessInterrupts"}, RetryNever, OutcomeUnknown},
		{"cached plan", pgconn.PgError{Severity: "ERROR", Code: "0A000", Routine: "RevalidateCachedQuery"}, RetryStatement, OutcomeRolledBack},
		{"cached plan by another", pgconn.PgError{Severity: "ERROR", Code: "0A000", Message: "cached plan must not change result type"}, RetryNever, OutcomeUnknown},
		{"prepared statement gone", pgconn.PgError{Severity: "ERROR", Code: "26000", Routine: "FetchPreparedStatement"}, RetryStatement, OutcomeRolledBack},
		{"prepared statement gone at a proxy", pgconn.PgError{Severity: "FATAL", Code: "26000"}, RetryReconnect, OutcomeUnknown},
		{"write on a standby", pgconn.PgError{Severity: "ERROR", Code: "25006", Routine: "PreventCommandIfReadOnly"}, RetryFailover, OutcomeRolledBack},
		{"xid on a standby", pgconn.PgError{Severity: "ERROR", Code: "25006", Routine: "PreventCommandDuringRecovery"}, RetryFailover, OutcomeRolledBack},
		{"read write on a standby", pgconn.PgError{Severity: "ERROR", Code: "0A000", Routine: "call_bool_check_hook", Message: "cannot set transaction read-write mode during recovery"}, RetryFailover, OutcomeRolledBack},
		{"with oids", pgconn.PgError{Severity: "ERROR", Code: "0A000", Routine: "call_bool_check_hook", Message: "tables declared WITH OIDS are not supported"}, RetryNever, OutcomeRolledBack},
		{"serializable on a standby", pgconn.PgError{Severity: "ERROR", Code: "0A000", Routine: "call_enum_check_hook"}, RetryFailover, OutcomeRolledBack},
		{"default serializable on a standby", pgconn.PgError{Severity: "ERROR", Code: "0A000", Routine: "GetSerializableTransactionSnapshot"}, RetryFailover, OutcomeRolledBack},
		{"wal position of a standby", pgconn.PgError{Severity: "ERROR", Code: "55000", Routine: "pg_current_wal_insert_lsn", Message: "recovery is in progress"}, RetryFailover, OutcomeRolledBack},
		{"wal position of a French standby", pgconn.PgError{Severity: "ERREUR", SeverityUnlocalized: "ERROR", Code: "55000", Routine: "pg_walfile_name", Message: "restauration en cours"}, RetryFailover, OutcomeRolledBack},
		{"wal position of Aurora", pgconn.PgError{Severity: "ERROR", Code: "55000", Routine: "pg_current_wal_lsn", Message: "wal_level must be set to 'logical'"}, RetryNever, OutcomeRolledBack},
		{"not a standby", pgconn.PgError{Severity: "ERROR", Code: "55000", Routine: "pg_wal_replay_pause", Message: "recovery is not in progress"}, RetryNever, OutcomeRolledBack},
		{"wal record on a standby", pgconn.PgError{Severity: "ERROR", Code: "XX000", Routine: "GetNewTransactionId"}, RetryFailover, OutcomeRolledBack},
		{"concurrent DDL", pgconn.PgError{Severity: "ERROR", Code: "XX000", Routine: "simple_heap_update"}, RetryNever, OutcomeRolledBack},
		{"starting up", pgconn.PgError{Severity: "FATAL", Code: "57P03", Routine: "ProcessStartupPacket"}, RetryWait, OutcomeNotStarted},
		{"no hot standby", pgconn.PgError{Severity: "FATAL", Code: "57P03", Routine: "ProcessStartupPacket", Detail: "Hot standby mode is disabled."}, RetryFailover, OutcomeNotStarted},
		{"statement_timeout", pgconn.PgError{Severity: "ERROR", Code: "57014", Routine: "ProcessInterrupts"}, RetryNever, OutcomeRolledBack},
		{"authentication_timeout", pgconn.PgError{Severity: "FATAL", Code: "57014", Routine: "ProcessInterrupts"}, RetryWait, OutcomeNotStarted},
		{"bad bind", pgconn.PgError{Severity: "ERROR", Code: "08P01", Routine: "exec_bind_message"}, RetryNever, OutcomeRolledBack},
		{"bad message", pgconn.PgError{Severity: "ERROR", Code: "08P01", Routine: "pq_getmsgend"}, RetryNever, OutcomeRolledBack},
		{"foreign server down", pgconn.PgError{Severity: "ERROR", Code: "08001", Routine: "connect_pg_server"}, RetryTransaction, OutcomeRolledBack},
		{"foreign link broken", pgconn.PgError{Severity: "ERROR", Code: "08006", Routine: "pgfdw_report_error"}, RetryNever, OutcomeRolledBack},
		{"dblink not open", pgconn.PgError{Severity: "ERROR", Code: "08003", Routine: "dblink_conn_not_avail"}, RetryNever, OutcomeRolledBack},
		{"raised by a function", pgconn.PgError{Severity: "ERROR", Code: "08006", Routine: "exec_stmt_raise"}, RetryNever, OutcomeRolledBack},
		{"future transaction id", pgconn.PgError{Severity: "ERROR", Code: "22023", Routine: "TransactionIdInRecentPast"}, RetryNever, OutcomeRolledBack},
		{"unlisted code of class 40", pgconn.PgError{Severity: "ERROR", Code: "40X99", Routine: "x"}, RetryTransaction, OutcomeRolledBack},
		{"unlisted code of class 08", pgconn.PgError{Severity: "FATAL", Code: "08X99", Routine: "x"}, RetryReconnect, OutcomeUnknown},
		{"unlisted class", pgconn.PgError{Severity: "ERROR", Code: "ZX001", Routine: "exec_stmt_raise"}, RetryNever, OutcomeRolledBack},
		{"unlisted class of a proxy", pgconn.PgError{Severity: "FATAL", Code: "ZX001"}, RetryNever, OutcomeUnknown},
		{"no code", pgconn.PgError{Severity: "ERROR"}, RetryNever, OutcomeUnknown},
		{"proxy without words", pgconn.PgError{Severity: "FATAL", Code: "XX000"}, RetryReconnect, OutcomeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			have := Classify(&c.err)
			require.Equal(t, c.retry.String()+" "+c.outcome.String(), have.Retry.String()+" "+have.Outcome.String())
			require.Equal(t, c.err.Code, have.SQLState)
			require.NotEmpty(t, have.Reason)
		})
	}
}

// A property over all codes: what a proxy may have made up never proves a rollback by FATAL, and no PANIC proves anything.
func TestNoFatalOfAProxyAndNoPanicProvesARollback(t *testing.T) {
	for _, row := range sqlstate.Entries() {
		require.NotEqual(t, OutcomeRolledBack, Classify(&pgconn.PgError{Severity: "FATAL", Code: row.Code}).Outcome, row.Code)
		panicked := Classify(&pgconn.PgError{Severity: "PANIC", Code: row.Code, Routine: "x"})
		require.Equal(t, OutcomeUnknown, panicked.Outcome, row.Code)
		require.Equal(t, RetryReconnect, panicked.Retry, row.Code)
		fatal := Classify(&pgconn.PgError{Severity: "FATAL", Code: row.Code, Routine: "x"})
		require.NotEqual(t, RetryStatement, fatal.Retry, row.Code)
		require.NotEqual(t, RetryTransaction, fatal.Retry, row.Code)
	}
}

func TestNilHasNoClass(t *testing.T) {
	require.Equal(t, Class{}, Classify(nil))
	require.Empty(t, SQLState(nil))
}

func TestErrorsOfTheCallerAreNeverRetried(t *testing.T) {
	for _, err := range []error{errors.New("no money"), fmt.Errorf("no money"), errors.Join(errors.New("a"), errors.New("b"))} {
		require.Equal(t, Class{Reason: "not a database error"}, Classify(err))
	}
}

type otherDriverError struct{ code string }

func (e otherDriverError) Error() string    { return "pq: " + e.code }
func (e otherDriverError) SQLState() string { return e.code }

func TestErrorsOfOtherDriversAreKnownByTheirSQLState(t *testing.T) {
	require.Equal(t, Class{RetryTransaction, OutcomeRolledBack, "40001", "serialization_failure"}, Classify(otherDriverError{"40001"}))
	require.Equal(t, Class{RetryNever, OutcomeRolledBack, "23505", "unique_violation"}, Classify(fmt.Errorf("x: %w", otherDriverError{"23505"})))
	require.Equal(t, OutcomeUnknown, Classify(otherDriverError{"57P01"}).Outcome, "no routine, no proof")
	require.Equal(t, "57P03", SQLState(otherDriverError{"57P03"}))
}

type annotatedError struct{ *pgconn.PgError }

func (e annotatedError) Error() string { return "transfer: " + e.PgError.Error() }
func (e annotatedError) Unwrap() error { return e.PgError }

func TestAWrapperThatRepeatsTheSQLStateDoesNotHideTheServersError(t *testing.T) {
	err := annotatedError{&pgconn.PgError{Severity: "FATAL", Code: "57P01", Routine: "ProcessInterrupts"}}
	require.Equal(t, Class{RetryReconnect, OutcomeRolledBack, "57P01", "admin_shutdown"}, Classify(err))
}

func TestTheFirstJoinedErrorThatSaysSomethingDecides(t *testing.T) {
	deadlock := &pgconn.PgError{Severity: "ERROR", Code: "40P01", Routine: "DeadLockReport"}
	unique := &pgconn.PgError{Severity: "ERROR", Code: "23505", Routine: "_bt_check_unique"}
	require.Equal(t, "40P01", SQLState(errors.Join(deadlock, unique)))
	require.Equal(t, "23505", SQLState(errors.Join(unique, deadlock)))
	require.Equal(t, "40P01", SQLState(errors.Join(errors.New("transfer failed"), deadlock)))
	require.Equal(t, "40P01", SQLState(fmt.Errorf("transfer: %w (rollback: %w)", deadlock, sql.ErrTxDone)))
	require.Equal(t, "40P01", SQLState(errors.Join(errors.Join(errors.New("a"), nil), fmt.Errorf("b: %w", errors.Join(deadlock)))))
}

func TestAnExhaustedErrorIsClassifiedByItsLastError(t *testing.T) {
	last := &pgconn.PgError{Severity: "ERROR", Code: "40001", Routine: "x"}
	err := fmt.Errorf("transfer: %w", &policy.ExhaustedError{Last: last, Cause: io.ErrUnexpectedEOF})
	require.Equal(t, Class{RetryTransaction, OutcomeRolledBack, "40001", "serialization_failure"}, Classify(err))
	require.Equal(t, "40001", SQLState(&policy.ExhaustedError{Last: last}))
	err = &policy.ExhaustedError{Cause: context.DeadlineExceeded}
	require.Equal(t, Class{RetryNever, OutcomeNotStarted, "", "not attempted"}, Classify(err))
}

// lostButKnown matches driver.ErrBadConn, so that database/sql drops the connection, and wraps what is known.
type lostButKnown struct{ err error }

func (e lostButKnown) Error() string        { return e.err.Error() }
func (e lostButKnown) Unwrap() error        { return e.err }
func (e lostButKnown) Is(target error) bool { return target == driver.ErrBadConn }

func TestWhatAnErrorWrapsSaysMoreThanWhatItMatches(t *testing.T) {
	err := lostButKnown{&pgconn.PgError{Severity: "FATAL", Code: "25P03", Routine: "ProcessInterrupts"}}
	require.ErrorIs(t, err, driver.ErrBadConn)
	require.Equal(t, "25P03", SQLState(err))
}

func TestALostCommitIsNeverRetriedWhateverEndedIt(t *testing.T) {
	for _, cause := range []error{
		io.ErrUnexpectedEOF,
		&pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "server conn crashed?"},
		&pgconn.PgError{Severity: "ERROR", Code: "40001", Routine: "x"},
	} {
		have := Classify(fmt.Errorf("transfer: %w", &CommitUnknownError{Err: cause}))
		require.Equal(t, RetryNever, have.Retry)
		require.Equal(t, OutcomeUnknown, have.Outcome)
		require.Equal(t, SQLState(cause), have.SQLState)
	}
}

func TestADroppedConnectionIsClassifiedByTheReason(t *testing.T) {
	have := Classify(&discardedError{err: pgconn.ErrConnClosed})
	require.Equal(t, Class{RetryReconnect, OutcomeNotStarted, "", "connection closed"}, have)
	have = Classify(&discardedError{err: &pgconn.PgError{Severity: "FATAL", Code: "57P01", Routine: "ProcessInterrupts"}})
	require.Equal(t, Class{RetryReconnect, OutcomeRolledBack, "57P01", "admin_shutdown"}, have)
	have = Classify(&discardedError{err: errors.New("wrong generation")})
	require.Equal(t, Class{RetryReconnect, OutcomeNotStarted, "", "connection dropped"}, have)
}

func TestClassifyingAServerErrorDoesNotAllocate(t *testing.T) {
	var err error = &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: "ERROR", Code: "40P01", Routine: "DeadLockReport"}
	wrapped := fmt.Errorf("transfer: %w", err)
	proxied := error(&pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "odyssey: c1: query_wait_timeout"})
	unlisted := error(&pgconn.PgError{Severity: "ERROR", Code: "40X99", Routine: "x"})
	for _, e := range []error{err, wrapped, proxied, unlisted} {
		require.Zero(t, testing.AllocsPerRun(100, func() { _ = Classify(e) }), "%v", e)
	}
}

func BenchmarkClassifyDeadlock(b *testing.B) {
	var err error = &pgconn.PgError{Severity: "ERROR", Code: "40P01", Routine: "DeadLockReport"}
	b.ReportAllocs()
	for b.Loop() {
		_ = Classify(err)
	}
}
