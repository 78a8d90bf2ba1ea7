package retrypg

import (
	"errors"
	"fmt"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// TuningOption is an Option that Reconfigure takes too: it changes when something is tried again and how long is waited, not
// what a connection is made of.
type TuningOption interface {
	Option
	tuning()
}

type tuningFunc func(*settings)

func (f tuningFunc) apply(s *settings) { f(s) }
func (tuningFunc) tuning()             {}

// WithMaxAttempts bounds how often one statement or one transaction is tried in all, the first attempt included. n must
// be from 1 to 1000000; 1 means no retry. It does not bound connecting, which is bounded by time.
func WithMaxAttempts(n int) TuningOption {
	return tuningFunc(func(s *settings) {
		if n < 1 {
			s.errs = append(s.errs, fmt.Errorf("WithMaxAttempts(%d): at least 1 is needed", n))
			return
		}
		s.maxAttempts = n
	})
}

// WithMaxElapsed bounds the time in which attempts begin: none begins later than d after the first attempt of a
// transaction began, or after that of a statement failed. Zero or Off: bounded by the context and by attempts alone; another
// negative time is an error.
func WithMaxElapsed(d time.Duration) TuningOption {
	return tuningFunc(func(s *settings) { s.maxElapsed = d })
}

// WithBackoff replaces the delays between attempts of statements and transactions: p decides how long to wait, and may
// stop earlier than the limits of WithMaxAttempts (DefaultMaxAttempts where it is not given) and WithMaxElapsed, which hold
// all the same. It must be safe for concurrent use. It does not change the waits of connecting.
func WithBackoff(p policy.Policy) TuningOption {
	return tuningFunc(func(s *settings) {
		if p == nil {
			s.errs = append(s.errs, errors.New("WithBackoff(nil): a policy is needed"))
			return
		}
		s.backoff = p
	})
}

// WithConnectMaxElapsed bounds how long connecting waits for a server where the context has no deadline, as when
// database/sql opens connections for waiting callers. Zero means DefaultConnectMaxElapsed; a negative time, Off too, is an error.
func WithConnectMaxElapsed(d time.Duration) TuningOption {
	return tuningFunc(func(s *settings) { s.connectMaxElapsed = d })
}

// WithStatementTimeout bounds statements whose context has no deadline: from sending one to its last row, in transactions
// too. What is over then is ended: the connection is closed, and of an autocommit statement that changes data nobody knows whether
// it took effect; WithTx runs the transaction again. A COMMIT that takes longer is asked about like one whose answer was lost. It does
// not bound COPY, batches, Prepare and Ping. An Idempotent statement is sent again, so that its call takes up to three times as long.
// Zero or Off, the default: no bound; another negative time is an error. It
// is the client's time, unlike PostgreSQL's statement_timeout, and also ends the wait for a server that says nothing any more.
func WithStatementTimeout(d time.Duration) TuningOption {
	return tuningFunc(func(s *settings) { s.statementTimeout = d })
}

// WithPingAfter sets how long after it was taken last (database/sql) or given back (pools) a connection is pinged when it is taken: only a round trip finds a server
// that vanished without a word. A look at the socket, which costs none, is always taken. Zero means DefaultPingAfter, Off never; another negative time is an error.
// A ShouldPing of a pool's configuration goes before.
func WithPingAfter(d time.Duration) TuningOption {
	return tuningFunc(func(s *settings) { s.pingAfter = d })
}

// WithCommitCheckMaxElapsed bounds how long the server is asked about a lost COMMIT where the context has no deadline. It is
// asked for 3 s in any case; a shorter time has no effect, a negative one is an error. Zero means
// DefaultCommitCheckMaxElapsed.
func WithCommitCheckMaxElapsed(d time.Duration) TuningOption {
	return tuningFunc(func(s *settings) { s.commitCheckMaxElapsed = d })
}
