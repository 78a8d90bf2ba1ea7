// Package classify tells what retrypg does with an error, by its SQLSTATE, by the name of its condition, or by its
// message. The verdicts are those of retrypg.Classify on an error that is made for it.
package classify

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/internal/sqlstate"
	"github.com/retrypg/retrypg/policy"
)

// Assumption says how an error was sent. What is empty is looked at in each way that makes a difference.
type Assumption struct {
	Severity string // ERROR, FATAL, PANIC or WARNING
	Routine  string // the function of the server that reported it
	Proxy    bool   // a pooler or proxy made it: it has no routine
}

// given reports whether anything is assumed.
func (a Assumption) given() bool { return a != Assumption{} }

// Result is what retrypg does with an error.
type Result struct {
	Input     string    `json:"input"`
	Known     bool      `json:"known"`
	SQLState  string    `json:"sqlstate,omitempty"`
	Condition string    `json:"condition,omitempty"` // PostgreSQL's name of it
	Class     string    `json:"class,omitempty"`     // title of the code's class
	Why       string    `json:"why,omitempty"`       // the reason in the table of SQLSTATEs
	Note      string    `json:"note,omitempty"`      // what the input does not say, or how it was found
	Verdicts  []Verdict `json:"verdicts"`            // the first is the usual one; each other one differs from it
	Nearest   []string  `json:"nearest,omitempty"`   // conditions that may have been meant
}

// Verdict is what retrypg does with an error that was sent in one way.
type Verdict struct {
	As       string  `json:"as"` // how it was sent, in words
	Severity string  `json:"severity,omitempty"`
	Routine  string  `json:"routine,omitempty"`
	Retry    string  `json:"retry"`   // what heals it
	Outcome  string  `json:"outcome"` // what it proves
	Reason   string  `json:"reason"`
	Actions  Actions `json:"actions"`

	proxy bool // it is that of an error without a routine
}

// Find looks input up: a SQLSTATE, the name of a condition, or a message, as a log has it. A name may stand for several
// codes.
func Find(input string, a Assumption) []Result {
	text := strings.TrimSpace(input)
	if r, ok := byCode(text, a); ok {
		return named(input, r)
	}
	if results := byCondition(text, a); len(results) > 0 {
		return named(input, results...)
	}
	if r, ok := byLogLine(text, a); ok {
		return named(input, r)
	}
	if r, ok := byMessage(text, a); ok {
		return named(input, r)
	}
	return named(input, unknown(text))
}

func named(input string, results ...Result) []Result {
	for i := range results {
		results[i].Input = input
	}
	return results
}

// byCode looks a SQLSTATE up in the table, then among the codes of other servers and poolers, then by its class.
func byCode(text string, a Assumption) (Result, bool) {
	code := strings.ToUpper(text)
	if !isCode(code) {
		return Result{}, false
	}
	if row, ok := sqlstate.Lookup(code); ok {
		return ofRow(row, a), true
	}
	class, listed := sqlstate.Lookup(code[:2] + "000")
	found := retrypg.Classify(&pgconn.PgError{Severity: "ERROR", Code: code, Routine: anyRoutine})
	switch {
	case listed && found.Reason == class.Name:
		r := Result{
			Known: true, SQLState: code, Class: class.Class, Why: class.Why,
			Note: "the code is not one of PostgreSQL: it is judged by its class, as " + class.Code + " " + class.Name,
		}
		r.Verdicts = verdicts(r.SQLState, "", class, a)
		return r, true
	case found.Reason != unlisted:
		r := Result{Known: true, SQLState: code, Class: class.Class, Note: "a code of another server, or of a pooler"}
		r.Verdicts = verdicts(code, "", sqlstate.Entry{}, a)
		return r, true
	}
	return Result{}, false
}

// unlisted is the reason of Classify for a code of which nothing is known.
var unlisted = retrypg.Classify(&pgconn.PgError{Code: "ZZZZZ"}).Reason

func isCode(text string) bool {
	return len(text) == 5 && strings.Trim(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// byCondition looks the name of a condition up, written with underscores or blanks.
func byCondition(text string, a Assumption) (results []Result) {
	name := conditionName(text)
	for _, row := range sqlstate.Entries() {
		if row.Name == name {
			results = append(results, ofRow(row, a))
		}
	}
	return results
}

func conditionName(text string) string {
	return strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(text))
}

func ofRow(row sqlstate.Entry, a Assumption) Result {
	r := Result{Known: true, SQLState: row.Code, Condition: row.Name, Class: row.Class, Why: row.Why}
	r.Verdicts = verdicts(row.Code, "", row, a)
	return r
}

// unknown is the result for a text that nothing is known of.
func unknown(text string) Result {
	r := Result{
		Note: "nothing is known of this text, and retrypg goes by the code of an error, not by its message: " +
			"with nothing else to go by it repeats nothing and claims nothing. Give the SQLSTATE if there is one",
		Nearest: nearestConditions(text),
	}
	c := retrypg.Classify(errorText(text))
	r.Verdicts = []Verdict{{As: "an error of which only the text is known", Retry: c.Retry.String(), Outcome: c.Outcome.String(), Reason: c.Reason, Actions: actions(sent{}, c)}}
	return r
}

// errorText is an error that is nothing but its text.
type errorText string

func (e errorText) Error() string { return string(e) }

// whileConnecting wraps an error as connecting returns it.
func whileConnecting(err error) error {
	return &policy.ExhaustedError{Op: endpoint.Connecting, Reason: policy.StopNotRetryable, Attempts: 1, Last: err}
}
