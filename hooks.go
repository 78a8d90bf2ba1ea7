package retrypg

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/breaker"
)

// Hooks are functions that are called as things happen, each of which may be nil. They run on the goroutine of the
// operation, never under a lock, and must not block; they may be called concurrently. A panic of one goes on to the caller
// of the operation; where database/sql connects on a goroutine of its own, nobody can recover from it, and a panic within its
// Commit costs it a connection. ServerFenced may run on the goroutine that watches over connections to several hosts, and
// ServerDown and ServerUp on that of another handle's operation: all handles of a
// process that lead to the same servers with the same rights find out together. The struct grows over time: use field names.
type Hooks struct {
	// Backoff is called after an attempt failed and before the wait for the next one, which may be 0, so not after the last attempt. Of
	// the callers that wait for a server it is called by the one that tries for all.
	Backoff func(context.Context, BackoffInfo)
	// ServerDown is called when a connection attempt failed in a way that waiting can heal and the server had been
	// thought up until then. err is that failure.
	ServerDown func(err error)
	// ServerUp is called when the server accepts connections again, after ServerDown, with the time for which it was away, as far as
	// somebody looked for it, and the number of attempts that took.
	ServerUp func(after time.Duration, attempts int)
	// ServerFenced is called when a server turned out to have lost its role: it is a standby, which err, the error of a
	// statement that only a primary can run, shows (a *pgconn.PgError), or it is silent while another host is the primary. All
	// connections to it are dropped, each when it is to be used next, and those to a silent one at once. It is called once for all that find it out. It is not called where the DSN asks for a
	// standby or for read-only servers.
	ServerFenced func(err error)
	// Failover is called when a new connection has shown that another server is the primary now: its timeline is a later one. Where
	// the DSN asks for a primary, and not in random order, also when it belongs to another cluster, or has another address
	// and does not say who it is (NoCheck, or a server that is not PostgreSQL). In a pool it runs on a goroutine of pgxpool's.
	Failover func(FailoverInfo)
	// Breaker is called when the circuit breaker changes its state.
	Breaker func(from, to breaker.State)
	// CommitUnknown is called when it could not be found out whether a COMMIT took effect.
	CommitUnknown func(context.Context, *CommitUnknownError)
	// CommitChecked is called when it was found out, or not, what became of a COMMIT whose answer was lost, and at each
	// ResolveCommit.
	CommitChecked func(context.Context, CommitCheckInfo)
	// CommitUnreplicated is called when a transaction committed, but the server gave up waiting for its synchronous
	// standbys: it is there, and may be lost in a failover. n is the server's warning; it is nil where a check has ended the
	// transaction's server process, which may have begun to wait.
	CommitUnreplicated func(ctx context.Context, n *pgconn.Notice)
	// Evicted is called when a pooled connection was dropped at its checkout because it was found dead, with the
	// reason: "dead" (the peer closed it), "ping" (it no longer answered) or "fenced" (its server has lost its role).
	Evicted func(reason string)
}

// BackoffInfo tells Hooks.Backoff about the attempt that failed.
type BackoffInfo struct {
	Operation string        // "statement", "transaction", "connect" or "ready"
	Name      string        // TxOptions.Name, if it is a transaction
	Attempt   int           // number of the attempt that failed, from 1
	Wait      time.Duration // how long until the next
	Err       error         // why it failed
	Class     Class         // Classify(Err)
}
