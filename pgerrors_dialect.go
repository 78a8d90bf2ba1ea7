package retrypg

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// dialect is an error that servers and poolers other than PostgreSQL send with a meaning of their own.
type dialect struct {
	code    string // empty: any
	message string // empty: any. Poolers do not localise.
	match   match
	retry   Retry
	outcome Outcome // of the work that is in flight; at connect nothing is
	reason  string
	weight  weight
}

// match says whose error fits a dialect, and where its message is looked for. The beginning is safer where a message
// repeats what a client sent.
type match uint8

const (
	proxyBegins  match = iota // an error without routine, whose message begins so
	anyoneBegins              // any error whose message begins so
	anyoneSays                // any error whose message contains it
)

// dialects is searched from the top; the first row that fits counts. Where something rolls a statement back but leaves a
// COMMIT open, the outcome is unknown, as the error does not say which of them it met.
var dialects = [...]dialect{
	// PgBouncer: everything of its own is FATAL 08P01.
	{"08P01", "server conn crashed", proxyBegins, RetryReconnect, OutcomeUnknown, "pooler lost its server connection", ordinary},
	{"08P01", "query_wait_timeout", proxyBegins, RetryWait, OutcomeNotStarted, "pooler has no server connection", ordinary},
	{"08P01", "server login has been failing", proxyBegins, RetryWait, OutcomeNotStarted, "pooler cannot log in to its server", ordinary},
	{"08P01", "no more connections allowed", proxyBegins, RetryWait, OutcomeNotStarted, "pooler is full", ordinary},
	{"08P01", "client connections exceeded", proxyBegins, RetryWait, OutcomeNotStarted, "pooler is full", ordinary},
	{"08P01", "client_login_timeout", proxyBegins, RetryWait, OutcomeNotStarted, "pooler login timed out", ordinary},
	{"08P01", "query_timeout", proxyBegins, RetryNever, OutcomeUnknown, "pooler query timeout", ordinary},
	{"08P01", "idle transaction timeout", proxyBegins, RetryReconnect, OutcomeUnknown, "pooler idle transaction timeout", ordinary},
	{"08P01", "transaction_timeout", proxyBegins, RetryNever, OutcomeUnknown, "pooler transaction timeout", ordinary},
	{"08P01", "server shutting down", proxyBegins, RetryReconnect, OutcomeUnknown, "pooler is shutting down", ordinary},
	{"08P01", "pooler is shutting down", proxyBegins, RetryReconnect, OutcomeUnknown, "pooler is shutting down", ordinary},
	{"08P01", "admin forced disconnect", proxyBegins, RetryReconnect, OutcomeUnknown, "pooler closed the connection", ordinary},
	{"08P01", "client_idle_timeout", proxyBegins, RetryReconnect, OutcomeUnknown, "pooler closed the connection", ordinary},
	{"08P01", "no such database", proxyBegins, RetryNever, OutcomeNotStarted, "pooler has no such database", decisive},
	{"08P01", "bouncer config error", proxyBegins, RetryNever, OutcomeNotStarted, "pooler has no such database", decisive},
	{"08P01", `database "`, proxyBegins, RetryNever, OutcomeNotStarted, "database is disabled in the pooler", decisive},
	{"08P01", `"trust" authentication failed`, proxyBegins, RetryNever, OutcomeNotStarted, "pooler refused the login", decisive},
	{"08P01", "password authentication failed", proxyBegins, RetryNever, OutcomeNotStarted, "pooler refused the login", decisive},
	{"08P01", "SASL authentication failed", proxyBegins, RetryNever, OutcomeNotStarted, "pooler refused the login", decisive},
	{"08P01", "no such user", proxyBegins, RetryNever, OutcomeNotStarted, "pooler refused the login", decisive},
	{"08P01", "unsupported startup parameter", proxyBegins, RetryNever, OutcomeNotStarted, "pooler refused a startup parameter", ordinary},
	{"08P01", "SSL required", proxyBegins, RetryNever, OutcomeNotStarted, "pooler requires TLS", ordinary},
	{"08P01", "prepared statement did not exist", proxyBegins, RetryReconnect, OutcomeRolledBack, "pooler lost a prepared statement", ordinary},
	{"08P01", "prepared statement name is already in use", proxyBegins, RetryReconnect, OutcomeRolledBack, "pooler lost a prepared statement", ordinary},

	// Odyssey: messages begin with "odyssey: <id>: ", which is cut off before the comparison.
	{"08P01", "unexpected message type", proxyBegins, RetryNever, OutcomeUnknown, "pooler met an unexpected message", ordinary},
	{"58000", "client routing failed", proxyBegins, RetryNever, OutcomeUnknown, "pooler has no route", ordinary},
	{"3D000", "route for", proxyBegins, RetryNever, OutcomeNotStarted, "pooler has no route", decisive},
	{"", "online restart", proxyBegins, RetryReconnect, OutcomeUnknown, "pooler is restarting", ordinary},

	// Supavisor. The rest of it follows from what a FATAL without a routine means (refineBySpeaker).
	{"08006", "Failed to connect to database", proxyBegins, RetryWait, OutcomeNotStarted, "pooler cannot reach its server", ordinary},

	// PgCat: everything is 58000.
	{"58000", "pool is down", proxyBegins, RetryWait, OutcomeUnknown, "pooler is down", ordinary},
	{"58000", "could not get connection from the pool", proxyBegins, RetryWait, OutcomeUnknown, "pooler has no server connection", ordinary},
	{"58000", "idle transaction timeout", proxyBegins, RetryReconnect, OutcomeUnknown, "pooler idle transaction timeout", ordinary},
	{"58000", "pool statement timeout", proxyBegins, RetryNever, OutcomeUnknown, "pooler statement timeout", ordinary},

	// Pgpool-II.
	{"XX000", "unable to read data from DB node", anyoneBegins, RetryReconnect, OutcomeUnknown, "pooler lost its server connection", ordinary},
	{"XX000", "unable to write", anyoneBegins, RetryReconnect, OutcomeUnknown, "pooler lost its server connection", ordinary},
	{"XX000", "all backend nodes are down", anyoneBegins, RetryWait, OutcomeUnknown, "pooler has no server", ordinary},
	{"57000", "connection terminated due to online recovery", anyoneBegins, RetryReconnect, OutcomeRolledBack, "pooler is recovering a node", ordinary},
	{"08S01", "", anyoneBegins, RetryWait, OutcomeNotStarted, "pooler could not start the session", ordinary},

	// CockroachDB. XXA00 is the one error that means committed: the transaction is applied, a schema change after it
	// was not.
	{"XXA00", "", anyoneBegins, RetryNever, OutcomeCommitted, "committed, but a schema change failed", ordinary},
	{"CR000", "", anyoneBegins, RetryTransaction, OutcomeRolledBack, "restart transaction", ordinary},
	{"57P01", "server is shutting down", anyoneBegins, RetryReconnect, OutcomeUnknown, "node is draining", ordinary},
	{"58C00", "", anyoneBegins, RetryTransaction, OutcomeUnknown, "range unavailable", ordinary},
	{"58C01", "", anyoneBegins, RetryTransaction, OutcomeUnknown, "internal connection failure", ordinary},
	{"XCUBS", "", anyoneBegins, RetryNever, OutcomeRolledBack, "bounded staleness unsatisfiable", ordinary},
	{"XXUUU", "", anyoneBegins, RetryNever, OutcomeRolledBack, "uncategorized error", ordinary},
	{"XXC01", "", anyoneBegins, RetryNever, OutcomeRolledBack, "licence required", ordinary},
	{"XXC02", "", anyoneBegins, RetryNever, OutcomeRolledBack, "licence expired", ordinary},

	// YugabyteDB before 2024.2.2 uses the code of internal errors for what is 40001 since.
	{"XX000", "schema version mismatch", anyoneSays, RetryTransaction, OutcomeRolledBack, "schema version mismatch", ordinary},
	{"XX000", "catalog snapshot", anyoneSays, RetryTransaction, OutcomeRolledBack, "catalog snapshot too old", ordinary},

	// The AWS wrapper drivers report a failover that they carried out by a code of their own.
	{"08S02", "", anyoneBegins, RetryReconnect, OutcomeUnknown, "failover done, session lost", ordinary},
}

// classifyDialect finds the row for e; the weight is silent if there is none.
func classifyDialect(e *pgconn.PgError) (Class, weight) {
	message := e.Message
	if rest, ok := strings.CutPrefix(message, "odyssey: "); ok {
		if _, text, ok := strings.Cut(rest, ": "); ok {
			message = text
		}
	}
	for i := range dialects {
		d := &dialects[i]
		if d.code != "" && d.code != e.Code {
			continue
		}
		fits := false
		switch d.match {
		case proxyBegins:
			fits = e.Routine == "" && strings.HasPrefix(message, d.message)
		case anyoneBegins:
			fits = strings.HasPrefix(message, d.message)
		case anyoneSays:
			fits = strings.Contains(message, d.message)
		}
		if fits {
			return Class{Retry: d.retry, Outcome: d.outcome, SQLState: e.Code, Reason: d.reason}, d.weight
		}
	}
	return Class{}, silent
}
