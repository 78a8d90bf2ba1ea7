package classify

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/sqlstate"
)

// anyRoutine stands for a function of the server that changes nothing. PostgreSQL always names one; what makes an error
// up in its place does not.
const anyRoutine = "postgres"

// routines are the functions of PostgreSQL whose errors may mean something else than their code says. Which of them do,
// and what, retrypg.Classify knows.
var routines = []string{
	"RevalidateCachedQuery", "GetSerializableTransactionSnapshot", "call_bool_check_hook", "pg_current_wal_lsn",
	"GetNewTransactionId", "exec_bind_message", "connect_pg_server", "pgfdw_report_error", "exec_stmt_raise",
}

// sent is how an error was sent. The zero value is one that no server sent.
type sent struct {
	severity string
	routine  string // empty: by a pooler or proxy
	code     string
	message  string
}

func (s sent) err() *pgconn.PgError {
	return &pgconn.PgError{Severity: s.severity, SeverityUnlocalized: s.severity, Code: s.code, Routine: s.routine, Message: s.message}
}

// words says how the error was sent.
func (s sent) words() string {
	switch s.routine {
	case "":
		return s.severity + " of a pooler or proxy (no routine)"
	case anyRoutine:
		return s.severity + " of PostgreSQL"
	}
	return s.severity + " of PostgreSQL, routine " + s.routine
}

func (s sent) verdict() Verdict {
	c := retrypg.Classify(s.err())
	v := Verdict{As: s.words(), Severity: s.severity, Retry: c.Retry.String(), Outcome: c.Outcome.String(), Reason: c.Reason, Actions: actions(s, c)}
	if v.proxy = s.routine == ""; s.routine != anyRoutine {
		v.Routine = s.routine
	}
	return v
}

// verdicts returns the verdict for a code that is sent as assumed; where nothing is assumed, for the usual way, and for
// each other way that makes a difference.
func verdicts(code, message string, row sqlstate.Entry, a Assumption) []Verdict {
	usual := sent{severity: usualSeverity(code, row), routine: anyRoutine, code: code, message: message}
	if a.given() {
		if a.Severity != "" {
			usual.severity = a.Severity
		}
		switch {
		case a.Proxy:
			usual.routine = ""
		case a.Routine != "":
			usual.routine = a.Routine
		}
		return []Verdict{usual.verdict()}
	}
	found := []Verdict{usual.verdict()}
	// add appends what differs from the verdict that it would have been taken for, unless that is there already.
	add := func(s sent, from Verdict) {
		v := s.verdict()
		if v.Retry == from.Retry && v.Outcome == from.Outcome {
			return
		}
		if s.routine == "" && slices.ContainsFunc(found, func(o Verdict) bool { return o.proxy && o.Retry == v.Retry && o.Outcome == v.Outcome }) {
			return
		}
		found = append(found, v)
	}
	server := func(severity, routine string) sent {
		return sent{severity: severity, routine: routine, code: code, message: message}
	}
	for _, severity := range []string{"FATAL", "ERROR"} {
		add(server(severity, anyRoutine), found[0])
	}
	for _, severity := range []string{"FATAL", "ERROR"} { // poolers prefer FATAL
		add(server(severity, ""), found[0])
	}
	for _, severity := range []string{"FATAL", "ERROR"} {
		for _, routine := range routines {
			add(server(severity, routine), server(severity, anyRoutine).verdict())
		}
	}
	return found
}

// onlyFatal are codes that PostgreSQL sends as FATAL although a connection has no part in them.
var onlyFatal = []string{"25P04", "28000", "28P01", "3D000", "57P04"}

// usualSeverity is how PostgreSQL sends the code: an error after which another connection is needed has ended its own.
func usualSeverity(code string, row sqlstate.Entry) string {
	if strings.HasPrefix(code, "01") || code == "57P02" {
		return "WARNING"
	}
	switch row.Retry {
	case sqlstate.Reconnect, sqlstate.Wait:
		return "FATAL"
	}
	if slices.Contains(onlyFatal, code) {
		return "FATAL"
	}
	return "ERROR"
}
