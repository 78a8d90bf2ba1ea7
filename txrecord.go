package retrypg

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// ending is how a transaction of which one of our connections had the end came to it.
type ending struct {
	over    bool    // Commit or Rollback was called
	verdict verdict // of COMMIT, if that was called
	lost    bool    // the connection was gone then
	final   bool    // no other server would do better
	refused bool    // a question of ours has aborted it
	aborted error   // what aborted the transaction, if something did
	last    lastFacts
}

func (e *ending) end(v verdict, conn *pgx.Conn, l *link) {
	e.over, e.verdict = true, v
	e.lost = conn != nil && conn.IsClosed()
	if l == nil {
		return
	}
	e.final, e.refused, e.last = l.tx.final, l.tx.refused, l.tx.last
	if l.txErr != nil {
		e.aborted = l.txErr
	}
}

func (e *ending) state() txState {
	return txState{
		ended: true, rolledBack: e.verdict == verdictNone || e.verdict == verdictNotApplied,
		lost: e.lost, final: e.final, refused: e.refused, aborted: e.aborted,
		last: e.last.sent, failed: e.last.failed, gaveUp: e.last.gaveUp,
	}
}

// stateOf tells what is known of a transaction that nobody ended through its methods.
func stateOf(conn *pgx.Conn, l *link) txState {
	status := conn.PgConn().TxStatus()
	if l != nil {
		status = l.status()
	}
	st := txState{
		// By SQL: COMMIT or ROLLBACK, which cannot be told apart. A closed connection keeps the last status.
		ended: status == 'I' || l != nil && (l.tx.texts.over || l.lostEnd()),
		sound: !conn.IsClosed() && status == 'T',
		lost:  conn.IsClosed(),
		// The transaction was made READ ONLY, or a standby is what was asked for.
		final: conn.PgConn().ParameterStatus("in_hot_standby") == "off" && (l == nil || !l.pooled && !l.tx.standby && l.suspect == nil) ||
			l != nil && l.tx.final,
	}
	if l == nil {
		return st
	}
	st.refused = l.tx.refused
	if last := &l.tx.last; last.sent {
		st.last, st.failed, st.gaveUp = true, last.failed, last.gaveUp
		st.ended, st.sound = false, false
	}
	if l.txErr != nil {
		st.aborted = l.txErr
	}
	return st
}

// txRecord is how WithTx and the driver talk about one attempt of a transaction: database/sql in between lets neither
// options nor verdicts through. It travels in the context of BeginTx. All methods work on a nil record.
type txRecord struct {
	deferrable bool
	wishes     txWishes
	nested     int // how many savepoints are open, or were left by what must not be committed

	with, without context.Context // the context that it travels in, and that without it

	// mu is held while the transaction is being ended: when a context ends, database/sql rolls back on a goroutine of
	// its own.
	mu      sync.Mutex
	session *session      // nil unless one of our connections began the transaction
	ended   chan struct{} // closed at its end; nil while nobody waits for that
	ending
}

type txRecordKey struct{}

func withRecord(ctx context.Context, r *txRecord) context.Context {
	with := context.WithValue(ctx, txRecordKey{}, r)
	if r != nil {
		r.with, r.without = with, withoutRecord(ctx)
	}
	return with
}

// withoutRecord returns ctx for what is not the transaction of the record that it may carry.
func withoutRecord(ctx context.Context) context.Context {
	switch r := recordFrom(ctx); {
	case r == nil:
		return ctx
	case r.with == ctx: // as a rule: database/sql hands it on as it is
		return r.without
	}
	return withRecord(ctx, nil)
}

// recordFrom returns the record of the WithTx that ctx belongs to, or nil.
func recordFrom(ctx context.Context) *txRecord {
	r, _ := ctx.Value(txRecordKey{}).(*txRecord)
	return r
}

func (r *txRecord) wantsDeferrable() bool { return r != nil && r.deferrable }

func (r *txRecord) wanted() (w txWishes) {
	if r != nil {
		w = r.wishes
	}
	return w
}

func (r *txRecord) begun(s *session) {
	if r != nil {
		r.session = s
	}
}

func (r *txRecord) lock() {
	if r != nil {
		r.mu.Lock()
	}
}

func (r *txRecord) unlock() {
	if r != nil {
		r.mu.Unlock()
	}
}

// sentLast tells what is known of a COMMIT that went with the last statement. The record is locked.
func (r *txRecord) sentLast() lastFacts {
	if r.over || r.session == nil {
		return r.last
	}
	return r.session.link.tx.last
}

// end notes that the transaction is over. The record is locked.
func (r *txRecord) end(v verdict, conn *pgx.Conn, l *link) {
	r.ending.end(v, conn, l)
	if r.ended != nil {
		close(r.ended)
		r.ended = nil
	}
}

// awaitEnd waits until the transaction is over, where database/sql rolls it back on a goroutine of its own: on a connection that the caller
// holds, his next statement must not run inside of it.
func (r *txRecord) awaitEnd() {
	r.mu.Lock()
	if r.session == nil || r.over {
		r.mu.Unlock()
		return
	}
	if r.ended == nil {
		r.ended = make(chan struct{})
	}
	ended := r.ended
	r.mu.Unlock()
	<-ended
}

// state tells what is known of the attempt.
func (r *txRecord) state() txState {
	r.lock()
	defer r.unlock()
	switch {
	case r.session == nil:
		return txState{}
	case r.over:
		return r.ending.state()
	}
	return stateOf(r.session.pgx, r.session.link)
}
