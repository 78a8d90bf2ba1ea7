package retrypg

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/outcome"
)

// txWishes is what the caller of a transaction asks for besides pgx.TxOptions.
type txWishes struct {
	name   string
	check  CommitCheck    // 0: that of the core
	verify bool           // TxOptions.Verify will be asked where the server cannot tell
	pinned bool           // the connection is one of pgx that the caller has
	locks  *advisoryLocks // to hold, if any: see beginLocked
	print  *txPrint       // what it touches; nil where nobody looks
	anew   bool           // it takes the place of one that is open: see txPrint
}

// txFacts is what is known of the open transaction, for its COMMIT.
type txFacts struct {
	wishes   txWishes
	options  pgx.TxOptions  // that it was begun with
	readOnly bool           // it was begun READ ONLY
	final    bool           // it failed as on a standby, and no other server would do better
	standby  bool           // it was begun on a hot standby, and stays read-only should that be promoted
	late     bool           // it is asked before its COMMIT, not at its BEGIN
	lazy     bool           // its BEGIN travels with its first statement, and the question with a later one or that
	shared   bool           // the caller has its connection
	refused  bool           // the server refused the question, which aborted it, and is not asked again
	begun    outcome.Begun  // zero where nothing was read
	token    *outcome.Token // of Ledger
	mute     string         // why nothing can be asked; empty if something can
	texts    textFacts
	last     lastFacts
}

const (
	muteOff      = "the commit check is off"
	muteReadOnly = "it was begun READ ONLY, and a statement of the caller's may have made it read-write"
	muteStandby  = "it was begun on a hot standby"
	muteServer   = "the server does not say who it is, or has no transaction ids to ask for"
	muteQuery    = "it was begun with a query of the caller's own"
	muteXID      = "its transaction id could not be read"
	muteSwitch   = "a statement of the caller's may have ended it and begun another"
	muteForeign  = "its driver does not tell the transaction's id"
)

// beginTx sends BEGIN, with the question for the transaction's id or its token behind it in the same message where no
// statement of the transaction can notice that: any query takes the snapshot of a REPEATABLE READ or SERIALIZABLE
// transaction, which the caller's first query is to take, after a LOCK TABLE say. Those are asked before their COMMIT.
func (c *core) beginTx(ctx context.Context, conn *pgx.Conn, l *link, o pgx.TxOptions, w txWishes) error {
	ctx, cancel := c.bounded(ctx)
	defer release(cancel)
	err := timedOut(ctx, c.sendBegin(ctx, conn, l, o, w))
	if w.print != nil && err == nil && l.rider != nil {
		l.rider.Digest()
	}
	return err
}

func (c *core) sendBegin(ctx context.Context, conn *pgx.Conn, l *link, o pgx.TxOptions, w txWishes) error {
	l.begin()
	if w.check == 0 {
		w.check = c.set.commitCheck
	}
	l.tx = txFacts{wishes: w, options: o, readOnly: o.AccessMode == pgx.ReadOnly, standby: l.pg.ParameterStatus("in_hot_standby") == "on"}
	switch {
	case o.BeginQuery != "":
		l.tx.mute = muteQuery
		_, err := conn.Exec(ctx, o.BeginQuery)
		return err
	case l.tx.readOnly:
		l.tx.mute = muteReadOnly
		return c.beginUnasked(ctx, conn, l)
	case w.check == NoCheck:
		l.tx.mute = muteOff
		return c.beginUnasked(ctx, conn, l)
	}
	if err := l.identify(ctx, conn); err != nil {
		return err
	}
	if w.check != Ledger {
		switch {
		case l.onStandby():
			l.tx.mute = muteStandby
			return c.beginUnasked(ctx, conn, l)
		case !l.server.Known():
			l.tx.mute = muteServer
			return c.beginUnasked(ctx, conn, l)
		case l.lacksIDs():
			l.tx.mute = muteXID
			return c.beginUnasked(ctx, conn, l)
		case c.lazy(l):
			return l.beginWithFirst(ctx)
		}
	}
	if keepsSnapshot(o.IsoLevel) || o.IsoLevel == "" && l.lateByDefault {
		return c.beginLate(ctx, conn, l)
	}
	var err error
	if w.check == Ledger {
		err = c.beginToken(ctx, conn, l)
	} else {
		err = l.beginXID(ctx, conn)
	}
	if err != nil {
		return err
	}
	if level := l.tx.begun.Isolation; level != "" && keepsSnapshot(pgx.TxIsoLevel(level)) { // default_transaction_isolation
		l.lateByDefault, l.tx.begun, l.tx.token = true, outcome.Begun{}, nil
		if err := rollback(ctx, conn); err != nil {
			return err
		}
		return c.beginLate(ctx, conn, l)
	}
	if l.tx.begun.Server.PID != 0 || l.tx.token != nil {
		l.tx.texts.asked(l.mark())
	}
	return nil
}

// onStandby reports whether the connection leads to a hot standby, as was said when it was made. Behind a pooler that is
// found out anew each time.
func (l *link) onStandby() bool { return l.server.Standby && !l.pooled }

// keepsSnapshot reports whether all statements of a transaction at that level see the same.
func keepsSnapshot(level pgx.TxIsoLevel) bool {
	switch level {
	case "", outcome.ReadCommitted, outcome.ReadUncommitted:
		return false
	}
	return true
}

// beginUnasked begins a transaction that is not asked for its id.
func (c *core) beginUnasked(ctx context.Context, conn *pgx.Conn, l *link) error {
	if c.lazy(l) {
		return l.beginWithFirst(ctx)
	}
	return l.beginPlainly(ctx, conn)
}

func (l *link) beginPlainly(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, beginStatement(l.tx.options))
	return err
}

// beginXID begins a transaction and reads its id. Where only that is refused, the transaction is begun without.
func (l *link) beginXID(ctx context.Context, conn *pgx.Conn) error {
	if l.beginText == "" || l.beginFor != l.tx.options {
		l.beginFor, l.beginText = l.tx.options, beginStatement(l.tx.options)+"; "+outcome.VersionOf(l.pg).XIDQuery(l.pooled)
	}
	err := l.sendBegin(ctx, conn)
	switch {
	case err == nil:
		l.readXID()
	case l.halfBegun(ctx, conn):
		l.tx.mute, l.tx.begun = muteXID, outcome.Begun{}
		if err := rollback(ctx, conn); err != nil {
			return err
		}
		return l.beginPlainly(ctx, conn)
	}
	return err
}

// readXID says why there is no id in an answer.
func (l *link) readXID() {
	switch {
	case l.tx.begun.XID != 0:
	case l.tx.begun.Server.Standby:
		l.tx.mute = muteStandby
	default: // another server process than the connection was made to
		l.tx.mute, l.pooled, l.beginText = muteXID, true, ""
	}
}

// halfBegun reports whether, after an error, BEGIN took effect and what followed it did not.
func (l *link) halfBegun(ctx context.Context, conn *pgx.Conn) bool {
	return !conn.IsClosed() && ctx.Err() == nil && l.pg.TxStatus() != 'I'
}

// question sends a question, perhaps with BEGIN before it, as pgx would, and reads the answer, which pgx would drop.
func (l *link) question(ctx context.Context, conn *pgx.Conn, sql, tag string, withToken bool) (err error) {
	return l.traced(ctx, conn, sql, tag, func(ctx context.Context) error {
		l.tx.begun, err = outcome.Begin(ctx, l.pg, sql, withToken, &l.server)
		return err
	})
}

// traced lets the tracer of the connection see what send sends.
func (l *link) traced(ctx context.Context, conn *pgx.Conn, sql, tag string, send func(context.Context) error) (err error) {
	if l.tracer != nil {
		ctx = l.tracer.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{SQL: sql})
		defer func() {
			l.tracer.TraceQueryEnd(ctx, conn, pgx.TraceQueryEndData{CommandTag: pgconn.NewCommandTag(tag), Err: err})
		}()
	}
	return send(ctx)
}

// greet prepares a new connection for the transactions that it will have.
func (c *core) greet(ctx context.Context, conn *pgx.Conn, l *link) error {
	if c.set.commitCheck == NoCheck {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.connectTimeout)
	defer cancel()
	if err := l.identify(ctx, conn); err != nil {
		return &greetError{err}
	}
	return nil
}

// greetError says that a new connection could not be asked who its server is: it is no use, and nothing has happened on it.
type greetError struct{ err error }

func (e *greetError) Error() string { return "ask the server who it is: " + e.err.Error() }
func (e *greetError) Unwrap() error { return e.err }

// identify reads who the server of the connection is, unless that is known. A hot standby that has become the primary
// since is asked again.
func (l *link) identify(ctx context.Context, conn *pgx.Conn) error {
	if !l.known {
		l.known, l.preparable = true, preparable(conn)
		if l.core == nil { // of another's pool, or alone
			l.tracer = conn.Config().Tracer
		}
	}
	if l.identified && !(l.server.Standby && l.pg.ParameterStatus("in_hot_standby") == "off") {
		return nil
	}
	return l.ask(ctx)
}

// ask asks the server who it is.
func (l *link) ask(ctx context.Context) error {
	id, err := outcome.Read(ctx, l.pg)
	var pgErr *pgconn.PgError
	if err != nil && (l.pg.IsClosed() || ctx.Err() != nil || errors.As(err, &pgErr) && severityOf(pgErr) != "ERROR") {
		return err
	}
	l.identified, l.server, l.beginText = true, id, ""
	// Behind a pooler each transaction may have another server connection, and after a crash that of another epoch.
	l.pooled = id.Known() && id.PID != l.pg.PID()
	return nil
}

// beginStatement is BEGIN as pgx writes it.
func beginStatement(o pgx.TxOptions) string {
	if o == (pgx.TxOptions{}) {
		return "begin"
	}
	sql := "begin"
	if o.IsoLevel != "" {
		sql += " isolation level " + string(o.IsoLevel)
	}
	if o.AccessMode != "" {
		sql += " " + string(o.AccessMode)
	}
	if o.DeferrableMode != "" {
		sql += " " + string(o.DeferrableMode)
	}
	return sql
}
