package retrypg

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// answerGrace is how much longer the answer to COMMIT is waited for after its context has ended. Chosen: a COMMIT that is
// on its way is answered by then, and where the answer is lost the server is to be asked soon.
const answerGrace = 250 * time.Millisecond

// committing is a COMMIT that is being answered. When a context ends, pgx gives the connection up and asks the server to
// cancel what runs on it, which during a COMMIT ends the wait for a synchronous standby: the transaction is then there,
// but not where it was promised to be. So pgx is not told of the context, and no request to cancel is sent.
type committing struct {
	mu           sync.Mutex
	waiting      bool           // guarded by mu: COMMIT was sent and its answer not read
	hurried      bool           // guarded by mu: the connection's deadline is set
	unreplicated *pgconn.Notice // the server stopped waiting for its synchronous standbys
}

// sendCommit calls exec, which sends COMMIT and reads its answer, for at most answerGrace after ctx has ended.
func (l *link) sendCommit(ctx context.Context, conn *pgx.Conn, exec func(context.Context) (pgconn.CommandTag, error)) (pgconn.CommandTag, error) {
	if l.wire != nil {
		l.wire.HoldCancels(true)
		// Of a connection that was given up, for good: pgx sends them in the background.
		defer func() { l.wire.HoldCancels(conn.IsClosed()) }()
	}
	l.answer.begin()
	defer l.answer.end(l.pg)
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { l.answer.hurry(l.pg) })
		defer stop()
	}
	return exec(context.WithoutCancel(ctx))
}

func (a *committing) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting, a.hurried, a.unreplicated = true, false, nil
}

// hurry ends the wait for the answer soon.
func (a *committing) hurry(pc *pgconn.PgConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting {
		a.hurried = pc.Conn().SetDeadline(time.Now().Add(answerGrace)) == nil
	}
}

// end leaves the connection without a deadline.
func (a *committing) end(pc *pgconn.PgConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = false
	if a.hurried {
		_ = pc.Conn().SetDeadline(time.Time{}) // an error means that the connection is gone
	}
}

// noteNotice keeps the warning that the transaction committed locally and that the wait for its synchronous standbys was
// ended, by a request to cancel (01000) or with the connection (57P01). The function's name is not translated, as the text
// is (src/backend/replication/syncrep.c).
func (l *link) noteNotice(n *pgconn.Notice) {
	if l != nil && n.Routine == "SyncRepWaitForLSN" && (n.Code == "01000" || n.Code == "57P01") {
		l.answer.unreplicated = n
	}
}

// giveUp closes a connection whose COMMIT was not answered, without a request to cancel.
func (l *link) giveUp(conn *pgx.Conn) {
	closeNow(conn)
	if l.wire != nil {
		_ = l.wire.Close() // pgx would read on in the background, for the answer to a request that was not sent
	}
}
