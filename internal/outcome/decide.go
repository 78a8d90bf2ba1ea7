package outcome

import "time"

// Verdict is what became of a transaction.
type Verdict uint8

// The verdicts. The zero value is the one that claims nothing.
const (
	Unknown    Verdict = iota // it may have committed or not
	Committed                 // it took effect
	NotApplied                // it did not, and never will
)

// String returns the word for v in telemetry: "unknown", "committed", "not_applied".
func (v Verdict) String() string {
	switch v {
	case Committed:
		return "committed"
	case NotApplied:
		return "not_applied"
	}
	return "unknown"
}

// Question is a transaction of which COMMIT was sent and no answer came.
type Question struct {
	Server Identity // where it began
	XID    uint64   // 0 where it is not known
	Token  *Token   // its row in a ledger; nil without one
}

// Answer is the end of the asking.
type Answer struct {
	Verdict Verdict
	Reason  string // of Unknown: why
	Over    bool   // of Unknown: the transaction is known to have ended
	Asked   int    // how often the server was asked
	Fenced  bool   // the transaction's server process was terminated
	// Unreplicated says that it committed, but may have been kept from waiting for its synchronous standbys.
	Unreplicated bool
	Err          error // of Unknown: the last error of asking, if there was one
}

// status is what a server said of a transaction.
type status uint8

const (
	statusNone       status = iota // it is a hot standby, which does not know
	statusInProgress               // not over, or so it seems
	statusCommitted
	statusAborted
	statusFuture    // the id was not handed out yet
	statusForgotten // so long ago that the server does not know any more
	statusExpired   // so long ago that the token may have been cleaned up
	statusElsewhere // the token is in another database
)

// reply is one answer of a server to a question.
type reply struct {
	server  Identity
	status  status
	byToken bool // status is about the token, not about the id
}

// next is what to do after a reply.
type next uint8

const (
	decided   next = iota
	askAgain       // later, the same server
	askOthers      // later, over a new connection: another server may answer it
)

// judge says what a reply means. It is where all rules are, and reads no clock and no connection.
func (q *Question) judge(r reply) (Answer, next) {
	known := q.Server.Known() && r.server.Known()
	switch {
	case r.server.Standby:
		return Answer{Reason: "a hot standby answered, which does not know"}, askOthers
	case known && r.server.System != q.Server.System:
		return Answer{Reason: "the server that answers belongs to another cluster"}, decided
	case known && r.server.Timeline < q.Server.Timeline:
		return Answer{Reason: "a former primary answered, which does not know"}, askOthers
	}
	if r.byToken {
		return judgeToken(r.status)
	}
	// The same id may be another transaction's there.
	doubtful := !known || r.server.Timeline != q.Server.Timeline || !q.Server.Epoch.Same(r.server.Epoch)
	switch r.status {
	case statusInProgress:
		return Answer{Reason: "the transaction is still in progress"}, askAgain
	case statusAborted:
		// Ids are handed out again only if nothing of their transactions is left: had it committed, it would say so.
		return Answer{Verdict: NotApplied}, decided
	case statusFuture:
		if doubtful {
			return Answer{Verdict: NotApplied}, decided
		}
		return Answer{Reason: "the server says that it has not handed out the transaction's id yet", Over: true}, decided
	case statusCommitted:
		switch {
		case !known:
			return Answer{Reason: "the server does not say who it is"}, decided
		case r.server.Timeline != q.Server.Timeline:
			return Answer{Reason: "there was a failover since, after which the transaction's id may have been handed out again", Over: true}, decided
		case doubtful:
			return Answer{Reason: "the server crashed or was restarted since, after which the transaction's id may have been handed out again", Over: true}, decided
		}
		return Answer{Verdict: Committed}, decided
	}
	return Answer{Reason: "the server does not know of the transaction any more", Over: true}, decided
}

// judgeToken is judge for what was said of a token: statusCommitted means that it is there, statusAborted that it is not
// and that nobody is about to write it.
func judgeToken(s status) (Answer, next) {
	switch s {
	case statusInProgress:
		return Answer{Reason: "the transaction is still in progress"}, askAgain
	case statusCommitted:
		return Answer{Verdict: Committed}, decided
	case statusAborted:
		return Answer{Verdict: NotApplied}, decided
	case statusElsewhere:
		return Answer{Reason: "the database that answers is another one than that of the transaction's ledger"}, decided
	}
	return Answer{Reason: "the transaction is so old that its token may have been cleaned up", Over: true}, decided
}

// same reports whether the server process of the transaction, if it still exists, is one of the server that replied:
// after a crash another one may have the same number.
func (q *Question) same(r reply) bool {
	return q.XID != 0 && q.Server.PID != 0 && q.Server.Known() && q.Server.System == r.server.System &&
		q.Server.Timeline == r.server.Timeline && q.Server.Epoch.Same(r.server.Epoch)
}

// When to end a transaction that is in progress although its connection is lost.
const (
	// fenceIdleAfter is how long it may be idle: its COMMIT never arrived. Chosen: much longer than a packet that was
	// overtaken needs, much shorter than a caller wants to wait.
	fenceIdleAfter = 250 * time.Millisecond
	// fenceActiveShare is the share of the remaining time that it may be busy with its COMMIT, with deferred triggers say,
	// which is likely to succeed.
	fenceActiveShare = 0.5
)
