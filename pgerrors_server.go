package retrypg

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/sqlstate"
)

// classifyServer classifies what a server, or a proxy in its place, reported. The code gives the first answer;
// severity and routine correct it.
func classifyServer(e *pgconn.PgError) (Class, weight) {
	if c, w := classifyDialect(e); w != silent {
		return c, w
	}
	c := classOfCode(e.Code)
	refineByRoutine(e, &c)
	refineBySpeaker(e, &c)
	refineBySeverity(e, &c)
	switch e.Code {
	case "28P01", "3D000", "42501":
		// The codes at which pgconn.ConnectConfig stops trying hosts: password, databases and privileges are data of
		// the cluster, so another host of it gives the same answer.
		return c, decisive
	}
	return c, ordinary
}

// classOfCode is the row of the table. A code that is not in it is judged by its class, as the SQL standard asks: the
// subclass 000 stands for the whole class.
func classOfCode(code string) Class {
	if row, ok := sqlstate.Lookup(code); ok {
		return Class{Retry: Retry(row.Retry), Outcome: Outcome(row.Outcome), SQLState: code, Reason: row.Name}
	}
	if len(code) == 5 {
		var buf [5]byte
		copy(buf[:], code[:2])
		copy(buf[2:], "000")
		if row, ok := sqlstate.Lookup(string(buf[:])); ok {
			return Class{Retry: Retry(row.Retry), Outcome: Outcome(row.Outcome), SQLState: code, Reason: row.Name}
		}
	}
	return Class{Outcome: OutcomeRolledBack, SQLState: code, Reason: "unlisted SQLSTATE"}
}

// refineByRoutine uses the name of the server function that reported the error. Unlike the message it is never
// translated. The names are those of PostgreSQL's source.
func refineByRoutine(e *pgconn.PgError, c *Class) {
	switch e.Code {
	case "08000", "08001", "08003", "08006":
		refineForeignLink(e, c)
	case "08P01":
		// The server could not read a message of ours: a fault of the client, and the connection lives on.
		if severityOf(e) == "ERROR" && (e.Routine == "exec_bind_message" || strings.HasPrefix(e.Routine, "pq_getmsg")) {
			c.Retry, c.Outcome = RetryNever, OutcomeRolledBack
		}
	case "0A000":
		switch e.Routine {
		case "RevalidateCachedQuery":
			c.Retry, c.Reason = RetryStatement, "cached plan must not change result type"
		case "GetSerializableTransactionSnapshot", "call_enum_check_hook":
			// SERIALIZABLE does not exist on a standby.
			standbyAnswered(c)
		case "call_bool_check_hook":
			// BEGIN READ WRITE or SET transaction_read_only = off. The same hook refuses default_with_oids.
			if !strings.Contains(e.Message, "WITH OIDS") {
				standbyAnswered(c)
			}
		}
	case "25006":
		// PreventCommandIfReadOnly, the other one that raises 25006, also serves READ ONLY transactions.
		if e.Routine == "PreventCommandDuringRecovery" {
			standbyAnswered(c)
		}
	case "55000":
		switch e.Routine {
		case "pg_current_wal_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_flush_lsn", "pg_walfile_name",
			"pg_walfile_name_offset", "pg_switch_wal", "pg_create_restore_point":
			// On a primary of Aurora they fail with the same code, and the message names this setting.
			if !strings.Contains(e.Message, "wal_level") {
				standbyAnswered(c)
			}
		}
	case "57014":
		// ProcessInterrupts: "canceling authentication due to timeout". A FATAL 57014 exists only before the session.
		if severityOf(e) == "FATAL" && e.Routine != "" {
			c.Retry, c.Outcome, c.Reason = RetryWait, OutcomeNotStarted, "authentication timed out"
		}
	case "57P03":
		if e.Detail == "Hot standby mode is disabled." {
			c.Retry, c.Reason = RetryFailover, "standby takes no connections"
		}
	case "XX000":
		switch e.Routine {
		case "GetNewTransactionId":
			standbyAnswered(c)
		case "simple_heap_update", "simple_heap_delete":
			// Concurrent DDL, GRANT or ANALYZE. A re-run helps, but the code is that of every internal error, so it
			// is left to the caller.
			c.Reason = "tuple concurrently changed"
		}
	}
}

// refineForeignLink handles class 08 inside a session: not our connection failed but one that the server opened, for a
// foreign table or dblink. Our transaction is rolled back. Only a link that never came up is sure to have done nothing
// on the far side.
func refineForeignLink(e *pgconn.PgError, c *Class) {
	if severityOf(e) != "ERROR" {
		return
	}
	switch {
	case e.Code == "08001" && (e.Routine == "connect_pg_server" || strings.HasPrefix(e.Routine, "dblink_")):
		c.Retry, c.Outcome, c.Reason = RetryTransaction, OutcomeRolledBack, "foreign server unreachable"
	case strings.HasPrefix(e.Routine, "pgfdw_") || strings.HasPrefix(e.Routine, "dblink_"):
		c.Retry, c.Outcome, c.Reason = RetryNever, OutcomeRolledBack, "foreign connection failed"
	case e.Routine == "exec_stmt_raise":
		c.Retry, c.Outcome, c.Reason = RetryNever, OutcomeRolledBack, "raise_exception"
	}
}

// standbyAnswered marks an error that only a server in recovery gives: nothing was written.
func standbyAnswered(c *Class) {
	c.Retry, c.Outcome, c.Reason = RetryFailover, OutcomeRolledBack, "server is in recovery"
}

// refineBySpeaker withdraws the proof of a rollback from errors that no PostgreSQL server made. PostgreSQL always sends
// a routine; poolers and proxies do not, and they do not know what became of a COMMIT that they had passed on.
func refineBySpeaker(e *pgconn.PgError, c *Class) {
	if e.Routine != "" || verdictOfDatabase(e.Code) {
		return
	}
	if c.Outcome == OutcomeRolledBack || e.Code == "57P05" {
		c.Outcome = OutcomeUnknown
	}
	if severityOf(e) == "FATAL" && e.Code == "XX000" {
		// Supavisor and Pgpool use the code for whatever has none, "too many clients" included.
		c.Retry = RetryReconnect
	}
}

// verdictOfDatabase says whether only that which holds the data can come to this verdict: bad data, broken constraints,
// conflicts between transactions, wrong SQL, errors raised by functions. No proxy invents these, and some servers that
// speak PostgreSQL's protocol send them without a routine.
func verdictOfDatabase(code string) bool {
	if len(code) != 5 {
		return false
	}
	switch code[:2] {
	case "21", "22", "23", "27", "40", "42", "44", "P0":
		return true
	}
	return false
}

// refineBySeverity: ERROR leaves the connection alive and the transaction rolled back, FATAL ends the connection, PANIC
// ends the server.
func refineBySeverity(e *pgconn.PgError, c *Class) {
	switch severityOf(e) {
	case "ERROR", "":
		// Only errors made by hand or by other drivers have no severity.
	case "FATAL":
		switch c.Retry {
		case RetryStatement, RetryTransaction:
			c.Retry = RetryReconnect
		}
		if c.Outcome == OutcomeRolledBack && (e.Routine == "" || !rollsBackWhenFatal(e.Code)) {
			c.Outcome = OutcomeUnknown
		}
	case "PANIC":
		c.Retry, c.Outcome = RetryReconnect, OutcomeUnknown
	default:
		// A notice (quickdie and SyncRepWaitForLSN send 57P01 and 57P02 as WARNING, and the commit record may be
		// written), or a word in another language from a server older than 9.6.
		if !verdictOfDatabase(e.Code) {
			c.Outcome = OutcomeUnknown
		}
	}
}

// rollsBackWhenFatal lists the codes that end a session only at places where no commit can be half done:
// ProcessInterrupts and the recovery conflicts on a standby. COMMIT holds interrupts off from before its record is
// written until its command tag is queued.
func rollsBackWhenFatal(code string) bool {
	switch code {
	case "25P03", "25P04", "40001", "40P01", "57P01", "57P04":
		return true
	}
	return false
}

// severityOf is the severity in English. Severity is localised; SeverityUnlocalized is empty before PostgreSQL 9.6 and
// from some proxies.
func severityOf(e *pgconn.PgError) string {
	if e.SeverityUnlocalized != "" {
		return e.SeverityUnlocalized
	}
	return e.Severity
}
