package metrics

import (
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
)

// Operation is a kind of operation: the value of the attribute retry.operation. Any other value than the constants below
// is recorded as "other".
type Operation string

// The operations.
const (
	OpConnect     Operation = "connect"      // one good connection, however many attempts it takes
	OpStatement   Operation = "statement"    // one statement outside of a transaction
	OpTransaction Operation = "transaction"  // one transaction from BEGIN to COMMIT, its attempts included
	OpCommitCheck Operation = "commit_check" // finding out whether a COMMIT took effect
	OpReady       Operation = "ready"        // waiting for a server to become ready
)

// Keys of the attributes. Those that begin with db, error and server are OpenTelemetry's semantic conventions.
const (
	AttrOperation      = attribute.Key("retry.operation")
	AttrStopReason     = attribute.Key("retry.stop_reason")
	AttrEvictionReason = attribute.Key("retry.eviction.reason")
	AttrCommitOutcome  = attribute.Key("retry.commit_outcome") // what became of a commit: committed, not_applied or unknown
	AttrCommitAsked    = attribute.Key("retry.commit_asked")   // spans only: how often the server was asked
	AttrCommitFenced   = attribute.Key("retry.commit_fenced")  // spans only: its server process was terminated to end it
	AttrName           = attribute.Key("retry.name")           // spans only: the name that the user gave to the transaction
	AttrAttempt        = attribute.Key("retry.attempt")        // spans only: number of the attempt, from 1
	AttrDelay          = attribute.Key("retry.delay")          // spans only: the wait, in seconds
	AttrClass          = attribute.Key("retry.class")          // spans only: what the classification said is to be done
	AttrPoolName       = attribute.Key("db.client.connection.pool.name")
	AttrPoolState      = attribute.Key("db.client.connection.state") // idle or used
	AttrDBSystem       = attribute.Key("db.system.name")
	AttrStatusCode     = attribute.Key("db.response.status_code") // the SQLSTATE
	AttrErrorType      = attribute.Key("error.type")              // spans only: the SQLSTATE, or else the kind of error
	AttrServerAddress  = attribute.Key("server.address")
	AttrServerPort     = attribute.Key("server.port")
)

const (
	dbSystem = "postgresql" // value of db.system.name in OpenTelemetry's semantic conventions
	other    = "other"      // stands for every value outside of a bounded set

	// maxNameBytes is the length at which the name of a transaction is cut off.
	maxNameBytes = 64
	// maxWordBytes is the length above which a word (class, eviction reason) is not accepted.
	maxWordBytes = 32
)

// operations lists the known operations; an operation's index here is its number in a labelKey.
var operations = [...]Operation{OpConnect, OpStatement, OpTransaction, OpCommitCheck, OpReady, other}

const (
	opOther = uint8(len(operations) - 1)
	opNone  = uint8(len(operations)) // the instrument has no operation
	opCount = uint8(len(operations) + 1)
)

// operationIndex is a switch, not a map: it is on the path of every statement.
func operationIndex(op Operation) uint8 {
	switch op {
	case OpConnect:
		return 0
	case OpStatement:
		return 1
	case OpTransaction:
		return 2
	case OpCommitCheck:
		return 3
	case OpReady:
		return 4
	}
	return opOther
}

// stopReasons lists the known reasons for giving up; a reason's index here is its number in a labelKey. Index 0 means
// that the instrument has none.
var stopReasons = [...]string{
	"",
	"not_retryable",
	"max_attempts",
	"max_elapsed",
	"deadline",
	"canceled",
	"budget_exhausted",
	"breaker_open",
	"policy",
	"commit_unknown",
	"panic",
	other,
}

const (
	reasonNone  = uint8(0)
	reasonOther = uint8(len(stopReasons) - 1)
)

func stopReasonIndex(reason string) uint8 {
	if reason == "" {
		return reasonOther // a failure always has a reason
	}
	for i := range uint8(len(stopReasons)) {
		if reason == stopReasons[i] {
			return i
		}
	}
	return reasonOther
}

// sqlstate is a SQLSTATE: five characters of 0-9 and A-Z. The zero value means that there is none.
type sqlstate [5]byte

// otherCode stands for codes beyond the bound of the cache. In lower case, it cannot be confused with a SQLSTATE.
var otherCode = sqlstate{'o', 't', 'h', 'e', 'r'}

// parseSQLState returns the zero value for everything that does not have the form of a SQLSTATE.
func parseSQLState(code string) sqlstate {
	var s sqlstate
	if len(code) != len(s) {
		return sqlstate{}
	}
	for i := range s {
		c := code[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return sqlstate{}
		}
		s[i] = c
	}
	return s
}

func (s sqlstate) String() string {
	if s == (sqlstate{}) {
		return ""
	}
	return string(s[:])
}

// boundedWord lets short identifiers pass and replaces all else, so that no sentence and no user data gets through.
func boundedWord(word string) string {
	if word == "" || len(word) > maxWordBytes {
		return other
	}
	for i := range len(word) {
		c := word[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return other
		}
	}
	return word
}

// boundedName cuts a name at maxNameBytes, between characters, and makes it valid UTF-8, which OTLP asks for.
func boundedName(name string) string {
	if len(name) > maxNameBytes {
		cut := maxNameBytes
		for cut > 0 && !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = name[:cut]
	}
	return strings.ToValidUTF8(name, "?")
}
