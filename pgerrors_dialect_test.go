package retrypg

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

func TestDialectsOfPoolersAndOtherServers(t *testing.T) {
	const (
		pgbouncer = "08P01"
		routine   = "elog"
	)
	for _, c := range []struct {
		code, message, routine string
		retry                  Retry
		outcome                Outcome
	}{
		// PgBouncer
		{pgbouncer, "server conn crashed?", "", RetryReconnect, OutcomeUnknown},
		{pgbouncer, "query_wait_timeout", "", RetryWait, OutcomeNotStarted},
		{pgbouncer, "server login has been failing, cached error: connect failed (server_login_retry)", "", RetryWait, OutcomeNotStarted},
		{pgbouncer, "server login has been failing, try again later (server_login_retry)", "", RetryWait, OutcomeNotStarted},
		{pgbouncer, "no more connections allowed (max_client_conn)", "", RetryWait, OutcomeNotStarted},
		{pgbouncer, "client connections exceeded (max_db_client_connections)", "", RetryWait, OutcomeNotStarted},
		{pgbouncer, "client connections exceeded (max_user_client_connections)", "", RetryWait, OutcomeNotStarted},
		{pgbouncer, "client_login_timeout", "", RetryWait, OutcomeNotStarted},
		{pgbouncer, "client_login_timeout (server down)", "", RetryWait, OutcomeNotStarted},
		{pgbouncer, "query_timeout", "", RetryNever, OutcomeUnknown},
		{pgbouncer, "idle transaction timeout", "", RetryReconnect, OutcomeUnknown},
		{pgbouncer, "transaction_timeout", "", RetryNever, OutcomeUnknown},
		{pgbouncer, "server shutting down", "", RetryReconnect, OutcomeUnknown},
		{pgbouncer, "pooler is shutting down", "", RetryReconnect, OutcomeUnknown},
		{pgbouncer, "admin forced disconnect", "", RetryReconnect, OutcomeUnknown},
		{pgbouncer, "client_idle_timeout", "", RetryReconnect, OutcomeUnknown},
		{pgbouncer, "no such database: query_wait_timeout", "", RetryNever, OutcomeNotStarted},
		{pgbouncer, "bouncer config error", "", RetryNever, OutcomeNotStarted}, // of 1.18, to whom asks for a database that it does not have
		{pgbouncer, `database "shop" is disabled`, "", RetryNever, OutcomeNotStarted},
		{pgbouncer, `"trust" authentication failed`, "", RetryNever, OutcomeNotStarted},
		{pgbouncer, "password authentication failed", "", RetryNever, OutcomeNotStarted},
		{pgbouncer, "SASL authentication failed", "", RetryNever, OutcomeNotStarted},
		{pgbouncer, "no such user", "", RetryNever, OutcomeNotStarted},
		{pgbouncer, "unsupported startup parameter: statement_timeout", "", RetryNever, OutcomeNotStarted},
		{pgbouncer, "SSL required", "", RetryNever, OutcomeNotStarted},
		{pgbouncer, "prepared statement did not exist", "", RetryReconnect, OutcomeRolledBack},
		{pgbouncer, "prepared statement name is already in use", "", RetryReconnect, OutcomeRolledBack},
		{pgbouncer, "something new", "", RetryReconnect, OutcomeUnknown},
		{pgbouncer, "query_wait_timeout", "exec_bind_message", RetryReconnect, OutcomeUnknown}, // FATAL, so no bind error
		{"57P03", "the database system is starting up", "", RetryWait, OutcomeNotStarted},
		{"57P01", "terminating connection due to administrator command", "ProcessInterrupts", RetryReconnect, OutcomeRolledBack},

		// Odyssey
		{"08006", "odyssey: c91a: remote server read/write error", "", RetryReconnect, OutcomeUnknown},
		{"08006", "odyssey: c91a: failed to get remote server connection", "", RetryReconnect, OutcomeUnknown},
		{"53300", "odyssey: c91a: too many active clients", "", RetryWait, OutcomeNotStarted},
		{"53300", "odyssey: c91a: too many tcp connections", "", RetryWait, OutcomeNotStarted},
		{"58000", "odyssey: c91a: client routing failed", "", RetryNever, OutcomeUnknown},
		{"3D000", "odyssey: c91a: route for 'shop.app' is not found", "", RetryNever, OutcomeNotStarted},
		{"08P01", "odyssey: c91a: unexpected message type", "", RetryNever, OutcomeUnknown},
		{"57P01", "odyssey: c91a: online restart is in progress, connections are being drained", "", RetryReconnect, OutcomeUnknown},

		// Supavisor
		{"57P01", "terminating connection due to administrator command", "", RetryReconnect, OutcomeUnknown},
		{"08006", "Failed to connect to database", "", RetryWait, OutcomeNotStarted},
		{"26000", "prepared statement does not exist", "", RetryReconnect, OutcomeUnknown},
		{"XX000", "Max client connections reached", "", RetryReconnect, OutcomeUnknown},

		// PgCat
		{"58000", "pool is down", "", RetryWait, OutcomeUnknown},
		{"58000", "could not get connection from the pool", "", RetryWait, OutcomeUnknown},
		{"58000", "idle transaction timeout", "", RetryReconnect, OutcomeUnknown},
		{"58000", "pool statement timeout", "", RetryNever, OutcomeUnknown},

		// Pgpool-II, with and without a routine
		{"XX000", "unable to read data from DB node 0", routine, RetryReconnect, OutcomeUnknown},
		{"XX000", "unable to read data from DB node 0", "", RetryReconnect, OutcomeUnknown},
		{"XX000", "unable to write data to backend", routine, RetryReconnect, OutcomeUnknown},
		{"XX000", "all backend nodes are down, pgpool requires at least one valid node", "", RetryWait, OutcomeUnknown},
		{"57000", "connection terminated due to online recovery", "", RetryReconnect, OutcomeRolledBack},
		{"53300", "Sorry, too many clients already", "", RetryWait, OutcomeNotStarted},
		{"08S01", "error while starting the session", "", RetryWait, OutcomeNotStarted},
		{"57P02", "terminating connection because of crash of another server process", "", RetryReconnect, OutcomeUnknown},
		{"57P01", "terminating connection", "", RetryReconnect, OutcomeUnknown},

		// CockroachDB, with and without a routine
		{"40003", "result is ambiguous", "", RetryNever, OutcomeUnknown},
		{"XXA00", "transaction committed but schema change aborted", "", RetryNever, OutcomeCommitted},
		{"XXA00", "transaction committed but schema change aborted", routine, RetryNever, OutcomeCommitted},
		{"CR000", "restart transaction", "", RetryTransaction, OutcomeRolledBack},
		{"57P01", "server is shutting down", routine, RetryReconnect, OutcomeUnknown},
		{"57P03", "node is not ready", "", RetryWait, OutcomeNotStarted},
		{"58C00", "range unavailable", "", RetryTransaction, OutcomeUnknown},
		{"58C01", "internal connection failure", "", RetryTransaction, OutcomeUnknown},
		{"XCUBS", "bounded staleness", "", RetryNever, OutcomeRolledBack},
		{"XXUUU", "oops", "", RetryNever, OutcomeRolledBack},
		{"XXC01", "licence", "", RetryNever, OutcomeRolledBack},
		{"XXC02", "licence", "", RetryNever, OutcomeRolledBack},

		// AWS
		{"08007", "transaction resolution unknown", "", RetryNever, OutcomeUnknown},
		{"08S02", "failover done", "", RetryReconnect, OutcomeUnknown},
		{"08001", "failover failed", "", RetryWait, OutcomeNotStarted},
		{"28000", "PAM authentication failed", "", RetryNever, OutcomeNotStarted},
	} {
		have := Classify(&pgconn.PgError{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: c.code, Message: c.message, Routine: c.routine})
		require.Equal(t, c.retry.String()+" "+c.outcome.String(), have.Retry.String()+" "+have.Outcome.String(),
			"%s %s %s", c.code, c.message, c.routine)
		require.Equal(t, c.code, have.SQLState)
		require.NotEmpty(t, have.Reason)
	}
}

// The same for errors after which the connection lives on.
func TestDialectsThatSendErrors(t *testing.T) {
	for _, c := range []struct {
		code, message, routine string
		retry                  Retry
		outcome                Outcome
	}{
		{"40001", "restart transaction: TransactionRetryWithProtoRefreshError", "", RetryTransaction, OutcomeRolledBack}, // CockroachDB
		{"53200", "memory budget exceeded", "NewMemoryBudgetExceededError", RetryTransaction, OutcomeRolledBack},
		{"42883", "unknown function: pg_current_xact_id()", "", RetryNever, OutcomeRolledBack},
		{"0A000", "unimplemented", "", RetryNever, OutcomeUnknown},
		{"40001", "change conflicts with another transaction, please retry: (OC000)", "", RetryTransaction, OutcomeRolledBack}, // Aurora DSQL
		{"40001", "schema has been updated by another transaction, please retry: (OC001)", "", RetryTransaction, OutcomeRolledBack},
		{"40001", "Restart read required", "YBFlushBufferedOperations", RetryTransaction, OutcomeRolledBack}, // YugabyteDB
		{"40P01", "deadlock detected", "x", RetryTransaction, OutcomeRolledBack},
		{"25P02", "current transaction is aborted", "exec_simple_query", RetryNever, OutcomeRolledBack},
		{"XX000", "The catalog snapshot used for this transaction has been invalidated", "x", RetryTransaction, OutcomeRolledBack},
		{"XX000", "Query error: schema version mismatch for table 0001", "x", RetryTransaction, OutcomeRolledBack},
		{"XX000", "something else", "x", RetryNever, OutcomeRolledBack},
		{"42P05", "prepared statement \"stmtcache_1\" already exists", "StorePreparedStatement", RetryNever, OutcomeRolledBack}, // PgBouncer before 1.21
		{"26000", "prepared statement \"stmtcache_1\" does not exist", "FetchPreparedStatement", RetryStatement, OutcomeRolledBack},
		{"55000", "wal_level must be set to 'logical'", "pg_current_wal_insert_lsn", RetryNever, OutcomeRolledBack}, // Aurora
	} {
		have := Classify(&pgconn.PgError{Severity: "ERROR", Code: c.code, Message: c.message, Routine: c.routine})
		require.Equal(t, c.retry.String()+" "+c.outcome.String(), have.Retry.String()+" "+have.Outcome.String(),
			"%s %s %s", c.code, c.message, c.routine)
	}
}

func TestEveryDialectRowCanBeReached(t *testing.T) {
	for i, d := range dialects {
		code := d.code
		if code == "" {
			code = "ZZZZZ"
		}
		have, w := classifyDialect(&pgconn.PgError{Code: code, Message: d.message})
		require.Equal(t, Class{d.retry, d.outcome, code, d.reason}, have, "row %d", i)
		require.NotEqual(t, silent, w, "row %d", i)
		require.NotEmpty(t, d.reason, "row %d", i)
		require.False(t, d.match == proxyBegins && d.message == "", "row %d would take every error of a proxy with this code", i)
		for _, earlier := range dialects[:i] {
			shadowed := earlier.code == d.code && earlier.match != anyoneSays && strings.HasPrefix(d.message, earlier.message)
			require.False(t, shadowed, "row %d (%s %q) is never reached", i, d.code, d.message)
		}
	}
}
