package classify

import (
	"strings"

	"github.com/retrypg/retrypg"
)

// Actions are what retrypg does, by what the error answered. What cannot be answered by it is nil.
type Actions struct {
	Connecting  *Action `json:"connecting,omitempty"`
	Statement   *Action `json:"statement,omitempty"`   // one plain statement, outside of a transaction
	Transaction *Action `json:"transaction,omitempty"` // WithTx, before COMMIT
	Commit      *Action `json:"commit,omitempty"`      // the answer to COMMIT
}

// Action is what retrypg does.
type Action struct {
	Does string `json:"does"` // one of the constants
	Text string `json:"text"`
}

// What an Action does.
const (
	Again    = "again"    // it is sent or run again
	Perhaps  = "perhaps"  // so, where the text names what must be met
	Waits    = "waits"    // for the server
	Asks     = "asks"     // the server is asked what became of the transaction
	Returned = "returned" // the caller gets the error
)

// actions follow the rules of the library: statement.go, txretry.go and commit.go.
func actions(s sent, c retrypg.Class) Actions {
	switch {
	case s.severity == "WARNING":
		return Actions{} // pgx returns no error
	case c.Outcome == retrypg.OutcomeCommitted:
		return Actions{Commit: commit(s, c)} // nothing else can be answered so
	}
	if c.Outcome == retrypg.OutcomeNotStarted && c.Retry != retrypg.RetryReconnect && s.severity != "ERROR" {
		return Actions{Connecting: connecting(c)} // no session had begun
	}
	a := Actions{Statement: statement(s, c), Transaction: transaction(s, c), Commit: commit(s, c)}
	if s.severity == "FATAL" {
		a.Connecting = connecting(c)
	}
	return a
}

func connecting(c retrypg.Class) *Action {
	switch c.Retry {
	case retrypg.RetryNever:
		return &Action{Returned, "fails at once: waiting does not heal it"}
	case retrypg.RetryFailover:
		return &Action{Waits, "tries the other hosts, then waits and tries again"}
	}
	return &Action{Waits, "waits and tries again, within the caller's deadline or retry_connect_max_elapsed"}
}

func statement(s sent, c retrypg.Class) *Action {
	rolledBack := s.severity == "ERROR" && c.Outcome == retrypg.OutcomeRolledBack
	switch {
	case rolledBack && c.Retry == retrypg.RetryTransaction && strings.HasPrefix(s.code, "40"):
		return &Action{Again, "sent again after a backoff"}
	case rolledBack && c.Retry == retrypg.RetryStatement:
		return &Action{Again, "sent again at once, twice at most"}
	case rolledBack && c.Retry == retrypg.RetryFailover:
		return &Action{Perhaps, "sent again over another connection if the server is found to be a standby; else returned"}
	case s.severity == "FATAL" && s.code == "57P01" && s.routine != "":
		return &Action{Perhaps, "an Exec without arguments is sent again over another connection; else returned, unless retrypg.Idempotent allows it"}
	case s.severity != "ERROR" && c.Retry == retrypg.RetryReconnect:
		return &Action{Perhaps, "returned, unless retrypg.Idempotent allows to send it again over another connection"}
	case c.Retry == retrypg.RetryTransaction:
		return &Action{Returned, "returned: only conflicts (class 40) are sent again; use WithTx"}
	}
	return &Action{Returned, "returned to the caller"}
}

func transaction(s sent, c retrypg.Class) *Action {
	switch c.Retry {
	case retrypg.RetryStatement, retrypg.RetryTransaction:
		return &Action{Again, "run again from BEGIN after a backoff"}
	case retrypg.RetryReconnect, retrypg.RetryWait:
		return &Action{Again, "run again from BEGIN on another connection: without its COMMIT it is rolled back"}
	case retrypg.RetryFailover:
		if s.code == "25006" && c.Reason == "read_only_sql_transaction" {
			return &Action{Perhaps, "run again from BEGIN on another connection, unless the server is no standby: then the transaction was READ ONLY"}
		}
		return &Action{Again, "run again from BEGIN on another connection"}
	}
	return &Action{Returned, "rolled back, and returned to the caller"}
}

func commit(s sent, c retrypg.Class) *Action {
	if !refused(s, c) {
		return &Action{Asks, "the server is asked what became of it: the answer is nil, or not applied, or ErrCommitUnknown"}
	}
	if t := transaction(s, c); t.Does != Returned {
		return &Action{t.Does, "not applied; WithTx runs it again"}
	}
	return &Action{Returned, "not applied, and returned to the caller"}
}

// refused reports whether the error proves that COMMIT was not applied, as commitRefused of the library does.
func refused(s sent, c retrypg.Class) bool {
	if s.routine == "" {
		return false
	}
	switch s.severity {
	case "ERROR":
		return c.Outcome == retrypg.OutcomeRolledBack
	case "FATAL":
		return s.code == "57P01" || s.code == "25P03" || s.code == "25P04"
	}
	return false
}
