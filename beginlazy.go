package retrypg

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/retrypg/retrypg/internal/outcome"
	"github.com/retrypg/retrypg/internal/piggyback"
	"github.com/retrypg/retrypg/internal/transport"
)

// lazyBegin is the setting of retry_lazy_begin; zero is the default.
type lazyBegin uint8

const (
	lazyBeginOn lazyBegin = iota + 1
	lazyBeginOff
)

func lazyBeginIf(on bool) lazyBegin {
	if on {
		return lazyBeginOn
	}
	return lazyBeginOff
}

// lazyBeginDefault is "on" or "off". It is a variable so that the linker can change it: all tests are run with both.
var lazyBeginDefault = "on"

// carry makes the connections of cfg carry BEGIN and the question for a transaction's id with what pgx sends.
func carry(cfg *pgx.ConnConfig) {
	build := cfg.BuildFrontend
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		nc, _ := w.(net.Conn)
		wire := transport.From(nc)
		if wire == nil { // a user's function hides it, so that its link would not find it either
			return build(r, w)
		}
		p := piggyback.New(r, w)
		wire.Attach(p)
		wire.Guard(p.Past)
		return build(p, p)
	}
}

// riderOf returns what carries messages of ours over a connection; nil if nothing does.
func riderOf(wire *transport.Conn) *piggyback.Conn {
	if wire == nil {
		return nil
	}
	p, _ := wire.Attached().(*piggyback.Conn)
	return p
}

// lazy reports whether BEGIN may wait for the first statement. Behind a pooler, and with what is not PostgreSQL, it does not: what
// those do with a refused BEGIN that a statement follows in the same flight is not for certain. Nor on a connection that the caller has,
// and may use past the transaction; nor on a hot standby: were that promoted before the first statement, the transaction would not be
// one of a standby, of which nothing is ever unknown.
func (c *core) lazy(l *link) bool { return c.lazyFor(l, l.tx.standby, l.tx.wishes.pinned) }

func (c *core) lazyFor(l *link, standby, pinned bool) bool {
	if standby || l.server.Standby {
		return false
	}
	return !pinned && l.rider != nil && l.core != nil && c.set.lazyBegin == lazyBeginOn && !l.pooled && (l.server.Known() || !l.identified)
}

// waitsForFirst reports whether beginTx will let the BEGIN of a transaction wait, on a connection whose server was asked who it is.
func (c *core) waitsForFirst(l *link, o pgx.TxOptions, w txWishes) bool {
	ledger := orDefault(w.check, c.set.commitCheck) == Ledger && o.AccessMode != pgx.ReadOnly
	return o.BeginQuery == "" && !ledger && c.lazyFor(l, l.pg.ParameterStatus("in_hot_standby") == "on", w.pinned)
}

// beginWithFirst leaves BEGIN to the flight of the first statement. The id is asked for behind the first statement that takes a
// snapshot: the question takes one itself, which that of a REPEATABLE READ or SERIALIZABLE transaction must not be, and after it
// no characteristic of the transaction can be changed.
func (l *link) beginWithFirst(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.pg.IsClosed() {
		return pgconn.ErrConnClosed
	}
	if l.beginMsgs == nil || l.beginMsgsFor != l.tx.options {
		l.beginMsgs, l.beginMsgsFor = outcome.Statement("", beginStatement(l.tx.options)), l.tx.options
	}
	l.tx.lazy, l.tx.late = true, l.tx.mute == ""
	if l.tx.wishes.anew { // not wherever one is open: that may be the caller's own
		l.tx.wishes.anew = false
		l.rider.BeginAgain(rollbackMsgs, l.beginMsgs)
		return nil
	}
	// Where the server did not say who it is, there may be something in between.
	l.rider.Begin(l.beginMsgs, !l.identified)
	return nil
}

var rollbackMsgs = outcome.Statement("", "rollback")

// waits reports whether BEGIN waits for the first statement.
func (l *link) waits() bool { return l.rider != nil && l.rider.Waits() }

// status is the status of the transaction: pgx knows it only once it has read all that answers the first statement.
func (l *link) status() byte {
	if l.rider == nil {
		return l.pg.TxStatus()
	}
	return l.rider.Status(l.pg.TxStatus())
}

// askWith lets the question for the transaction's id travel with a text, if it is to be asked and may.
func (l *link) askWith(sql string) {
	if !l.tx.late {
		return
	}
	l.collect()
	if l.tx.late && !l.tx.refused && !l.tx.shared && l.tx.wishes.check != Ledger && !l.tx.texts.switched && takesSnapshot(sql) {
		l.rider.Behind(l.xidQuestion())
	}
}

// share notes that the caller has the connection: with what is sent over it nothing travels.
func (l *link) share() {
	l.tx.shared = true
	l.collect()
}

// xidQuestion is the question for the transaction's id. On a connection that is kept it is prepared, with the flight that it travels with.
func (l *link) xidQuestion() []byte {
	switch {
	case l.named == namedYes && l.rider.Forgotten():
		l.named = namedOff // by DISCARD or DEALLOCATE, which will come again
		l.questionMsgs = nil
	case l.named == namedNot && l.preparable:
		if l.begins++; l.begins > prepareAfter {
			l.named = namedWith
			l.rider.Watch()
			l.questionMsgs = outcome.Statement(outcome.PreparedXID, outcome.VersionOf(l.pg).XIDQuery(false))
		}
	}
	if l.questionMsgs == nil {
		l.questionMsgs = outcome.Statement("", outcome.VersionOf(l.pg).XIDQuery(false))
	}
	return l.questionMsgs
}

// named is whether the question is a prepared statement of the connection.
type named uint8

const (
	namedNot  named = iota // not yet
	namedWith              // with the flight that it travels with next
	namedYes
	namedOff // and will not be
)

// collect takes the answer to the question that traveled with a text, and lets none travel any more.
func (l *link) collect() {
	if l.rider == nil || !l.tx.lazy {
		return
	}
	answer, values := l.rider.Answer()
	if l.tx.late && answer == piggyback.Answered {
		if begun, err := outcome.ReadBegun(values, &l.server); err == nil {
			l.tx.begun, l.tx.late = begun, false
			l.readXID()
			if l.named == namedWith {
				l.named, l.questionMsgs = namedYes, outcome.Execution(outcome.PreparedXID)
			}
		}
	}
	l.rider.Behind(nil)
}

// refusedQuestion is told that a statement has failed because of the question that traveled with it, and why: the caller's statement
// did not, but the transaction is aborted.
func (l *link) refusedQuestion(code string) {
	if l.named != namedNot {
		l.named, l.questionMsgs = namedOff, nil
	}
	if code == programLimitExceeded {
		l.outOfIDs, l.tx.refused = time.Now(), true
	}
}

// notBegun returns why there is no transaction, where the server has refused BEGIN.
func (l *link) notBegun() error {
	if l.txErr == nil {
		return errNotBegun
	}
	return l.txErr
}

var errNotBegun = errors.New("retrypg: the server has refused BEGIN, so there is no transaction: roll back")

// refused reports whether the server has refused the BEGIN of the transaction.
func (l *link) refused() bool { return l.rider != nil && l.rider.Refused() }

// leave lets nothing of a transaction that has ended travel with what follows it.
func (l *link) leave() {
	if l.rider != nil {
		l.rider.Reset()
	}
}

// beginNow sends a BEGIN that waits, as its own flight: for what does not send its statements through the transaction.
func (l *link) beginNow(ctx context.Context) error {
	if !l.waits() || l.pg.IsClosed() {
		return nil
	}
	ctx, cancel := l.core.bounded(ctx)
	defer release(cancel)
	return timedOut(ctx, l.beginAlone(ctx))
}

// beginAlone sends a BEGIN that waits, and what travels with it.
func (l *link) beginAlone(ctx context.Context) error {
	l.collect()
	_, err := l.pg.Exec(ctx, "").ReadAll()
	return err
}

// takesSnapshot reports whether a text is one statement that takes a snapshot of the data.
func takesSnapshot(sql string) bool {
	t := sqlText{s: sql}
	return t.skipBlank() && t.plans() && !several(sql)
}
