package classify

import (
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/sqlstate"
)

// logLine is an error as pgx writes it. sqlstateIn is its code as others do.
var (
	logLine    = regexp.MustCompile(`\b(ERROR|FATAL|PANIC|WARNING):\s+(.+?) \(SQLSTATE ([0-9A-Z]{5})\)`)
	verbose    = regexp.MustCompile(`\b(ERROR|FATAL|PANIC|WARNING):\s+([0-9A-Z]{5}): (.+)`) // psql with VERBOSITY verbose
	sqlstateIn = regexp.MustCompile(`(?i)\bSQLSTATE\W{0,3}([0-9A-Z]{5})\b`)
)

// byLogLine looks up a text that has a SQLSTATE in it.
func byLogLine(text string, a Assumption) (Result, bool) {
	var severity, code, message string
	if m := logLine.FindStringSubmatch(text); m != nil {
		severity, message, code = m[1], m[2], m[3]
	} else if m := verbose.FindStringSubmatch(text); m != nil {
		severity, code, message = m[1], m[2], m[3]
	} else if m := sqlstateIn.FindStringSubmatch(text); m != nil {
		code = strings.ToUpper(m[1])
	} else {
		return Result{}, false
	}
	r, ok := byCode(code, a)
	if !ok {
		return Result{}, false
	}
	row, _ := sqlstate.Lookup(code)
	if a.Severity == "" {
		a.Severity = severity
	}
	if a.Routine == "" && !a.Proxy && severity != "" {
		// The text does not say who sent it.
		server := sent{severity: a.Severity, routine: anyRoutine, code: code, message: message}
		r.Verdicts = []Verdict{server.verdict()}
		proxy := server
		proxy.routine = ""
		if v := proxy.verdict(); v.Retry != r.Verdicts[0].Retry || v.Outcome != r.Verdicts[0].Outcome {
			r.Verdicts = append(r.Verdicts, v)
			r.Note = "the text does not tell whether PostgreSQL or a pooler sent it: the routine of the error does"
		}
		return r, true
	}
	r.Verdicts = verdicts(code, message, row, a)
	return r, true
}

// byMessage looks up a message without a code: of Go and pgx, of PostgreSQL, and of poolers.
func byMessage(text string, a Assumption) (Result, bool) {
	if r, ok := byGoError(text); ok {
		return r, true
	}
	lower := strings.ToLower(text)
	for _, m := range serverMessages {
		if !m.message.MatchString(lower) {
			continue
		}
		row, _ := sqlstate.Lookup(m.code)
		r := ofRow(row, a)
		if m.routine != "" && !a.given() {
			s := sent{severity: usualSeverity(m.code, row), routine: m.routine, code: m.code, message: text}
			r.Verdicts = []Verdict{s.verdict()}
		}
		r.Note = "known as the English message of this code of PostgreSQL; retrypg itself goes by the code, as messages are translated"
		return r, true
	}
	return byPooler(text)
}

// poolerCodes are those that poolers use for errors of their own.
var poolerCodes = []string{"08P01", "58000", "XX000", "57000", "57P01", "08006", "3D000"}

// byPooler asks retrypg.Classify whether the message changes what the code of a pooler says.
func byPooler(text string) (Result, bool) {
	for _, s := range []string{"FATAL: ", "ERROR: "} {
		text = strings.TrimPrefix(text, s)
	}
	for _, code := range poolerCodes {
		s := sent{severity: "FATAL", code: code, message: text}
		without := retrypg.Classify(&pgconn.PgError{Severity: "FATAL", Code: code})
		if retrypg.Classify(s.err()).Reason == without.Reason {
			continue
		}
		row, _ := sqlstate.Lookup(code)
		return Result{
			Known: true, SQLState: code, Condition: row.Name, Class: row.Class,
			Note:     "known as the message of a pooler, sent with this code and without a routine",
			Verdicts: []Verdict{s.verdict()},
		}, true
	}
	return Result{}, false
}

// serverMessages are well-known messages of PostgreSQL, in lower case.
var serverMessages = []struct {
	message *regexp.Regexp
	code    string
	routine string // where it decides
}{
	{regexp.MustCompile(`deadlock detected`), "40P01", ""},
	{regexp.MustCompile(`could not serialize access`), "40001", ""},
	{regexp.MustCompile(`canceling statement due to conflict with recovery`), "40001", ""},
	{regexp.MustCompile(`cached plan must not change result type`), "0A000", "RevalidateCachedQuery"},
	{regexp.MustCompile(`the database system is (starting up|shutting down|in recovery mode|not yet accepting connections|not accepting connections)`), "57P03", ""},
	{regexp.MustCompile(`terminating connection due to administrator command`), "57P01", ""},
	{regexp.MustCompile(`terminating connection because of crash of another server process`), "57P02", ""},
	{regexp.MustCompile(`terminating connection due to idle-in-transaction timeout`), "25P03", ""},
	{regexp.MustCompile(`terminating connection due to transaction timeout`), "25P04", ""},
	{regexp.MustCompile(`terminating connection due to idle-session timeout`), "57P05", ""},
	{regexp.MustCompile(`canceling statement due to (statement timeout|user request)`), "57014", ""},
	{regexp.MustCompile(`canceling statement due to lock timeout|could not obtain lock on`), "55P03", ""},
	{regexp.MustCompile(`too many clients already|too many connections for|remaining connection slots are reserved`), "53300", ""},
	{regexp.MustCompile(`cannot execute .* in a read-only transaction`), "25006", ""},
	{regexp.MustCompile(`cannot execute .* during recovery`), "25006", "PreventCommandDuringRecovery"},
	{regexp.MustCompile(`password authentication failed for user`), "28P01", ""},
	{regexp.MustCompile(`no pg_hba\.conf entry`), "28000", ""},
	{regexp.MustCompile(`database ".*" does not exist`), "3D000", ""},
	{regexp.MustCompile(`prepared statement ".*" does not exist`), "26000", ""},
	{regexp.MustCompile(`prepared statement ".*" already exists`), "42P05", ""},
	{regexp.MustCompile(`current transaction is aborted`), "25P02", ""},
	{regexp.MustCompile(`duplicate key value violates unique constraint`), "23505", ""},
}
