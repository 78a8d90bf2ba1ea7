package retrypg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/outcome"
)

// txWishes is what the caller of a transaction asks for besides pgx.TxOptions.
type txWishes struct {
	name   string
	check  CommitCheck // 0: that of the core
	verify bool        // TxOptions.Verify will be asked where the server cannot tell
}

// txFacts is what can be asked about a transaction whose COMMIT is lost.
type txFacts struct {
	wishes   txWishes
	readOnly bool           // it was begun READ ONLY
	begun    outcome.Begun  // zero where nothing was read
	token    *outcome.Token // of Ledger
	mute     string         // why nothing can be asked; empty if something can
	switched bool           // a text may have ended it and begun another
}

const (
	muteOff     = "the commit check is off"
	muteStandby = "it was begun on a hot standby"
	muteServer  = "the server does not say who it is, or has no transaction ids to ask for"
	muteQuery   = "it was begun with a query of the caller's own"
	muteXID     = "its transaction id could not be read"
	muteSwitch  = "a statement of the caller's may have ended it and begun another"
	muteForeign = "its driver does not tell the transaction's id"
)

// beginTx sends BEGIN, with the question for the transaction's id or its token behind it in the same message.
func (c *core) beginTx(ctx context.Context, conn *pgx.Conn, l *link, o pgx.TxOptions, w txWishes) error {
	l.begin()
	if w.check == 0 {
		w.check = c.set.commitCheck
	}
	l.tx = txFacts{wishes: w, readOnly: o.AccessMode == pgx.ReadOnly}
	switch {
	case o.BeginQuery != "":
		l.tx.mute = muteQuery
		_, err := conn.Exec(ctx, o.BeginQuery)
		return err
	case l.tx.readOnly, w.check == NoCheck:
		l.tx.mute = muteOff
		return beginPlainly(ctx, conn, o)
	}
	if err := l.identify(ctx, conn); err != nil {
		return err
	}
	if w.check == Ledger {
		return c.beginToken(ctx, conn, l, o)
	}
	switch {
	case l.server.Standby:
		l.tx.mute = muteStandby
	case !l.server.Known():
		l.tx.mute = muteServer
	default:
		return l.beginXID(ctx, conn, o)
	}
	return beginPlainly(ctx, conn, o)
}

func beginPlainly(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions) error {
	_, err := conn.Exec(ctx, beginStatement(o))
	return err
}

// beginXID begins a transaction and reads its id. Where only that is refused, the transaction is begun without.
func (l *link) beginXID(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions) error {
	if l.beginText == "" || l.beginFor != o {
		l.beginFor, l.beginText = o, beginStatement(o)+outcome.VersionOf(l.pg).XIDQuery(l.pooled)
	}
	err := l.sendBegin(ctx, conn, l.beginText, false)
	switch {
	case err == nil && l.tx.begun.XID != 0:
	case err == nil && l.tx.begun.Server.Standby:
		l.tx.mute = muteStandby
	case err == nil: // another server process than the connection was made to
		l.tx.mute, l.pooled, l.beginText = muteXID, true, ""
	case l.halfBegun(ctx, conn):
		l.tx.mute, l.tx.begun = muteXID, outcome.Begun{}
		if err := rollback(ctx, conn); err != nil {
			return err
		}
		return beginPlainly(ctx, conn, o)
	}
	return err
}

// halfBegun reports whether, after an error, BEGIN took effect and what followed it did not.
func (l *link) halfBegun(ctx context.Context, conn *pgx.Conn) bool {
	return !conn.IsClosed() && ctx.Err() == nil && l.pg.TxStatus() != 'I'
}

// sendBegin sends BEGIN and what is behind it as pgx would, and reads the answer, which pgx would drop.
func (l *link) sendBegin(ctx context.Context, conn *pgx.Conn, sql string, withToken bool) (err error) {
	if l.tracer != nil {
		ctx = l.tracer.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{SQL: sql})
		defer func() {
			l.tracer.TraceQueryEnd(ctx, conn, pgx.TraceQueryEndData{CommandTag: pgconn.NewCommandTag("BEGIN"), Err: err})
		}()
	}
	l.tx.begun, err = outcome.Begin(ctx, l.pg, sql, withToken, &l.server)
	return err
}

// greet prepares a new connection for the transactions that it will have.
func (c *core) greet(ctx context.Context, conn *pgx.Conn, l *link) error {
	if c.set.commitCheck == NoCheck {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.connectTimeout)
	defer cancel()
	return l.identify(ctx, conn)
}

// identify reads who the server of the connection is, unless that is known. A hot standby that has become the primary
// since is asked again.
func (l *link) identify(ctx context.Context, conn *pgx.Conn) error {
	if l.identified && !(l.server.Standby && l.pg.ParameterStatus("in_hot_standby") == "off") {
		return nil
	}
	if l.core == nil && !l.identified { // of another's pool, or alone
		l.tracer = conn.Config().Tracer
	}
	id, err := outcome.Read(ctx, l.pg)
	var pgErr *pgconn.PgError
	if err != nil && (conn.IsClosed() || ctx.Err() != nil || errors.As(err, &pgErr) && severityOf(pgErr) != "ERROR") {
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

// Codes of the errors of a table that is not there, or that another connection has made in the same moment.
const (
	undefinedTable        = "42P01"
	undefinedSchema       = "3F000"
	duplicateTable        = "42P07"
	duplicateObject       = "42710"
	uniqueViolation       = "23505"
	insufficientPrivilege = "42501"
)

// beginToken begins a transaction and writes its token. The table is made where it is missing.
func (c *core) beginToken(ctx context.Context, conn *pgx.Conn, l *link, o pgx.TxOptions) error {
	token := &outcome.Token{Table: c.ledger, ID: newToken(), Keep: c.set.ledgerRetention}
	known := l.server.Known() && !l.server.Standby
	sql := beginStatement(o) + outcome.VersionOf(l.pg).TokenQuery(token.Table, token.ID, known)
	err := l.sendBegin(ctx, conn, sql, true)
	if SQLState(err) == undefinedTable && l.halfBegun(ctx, conn) {
		if err = rollback(ctx, conn); err == nil {
			if err = c.createLedger(ctx, conn); err == nil {
				err = l.sendBegin(ctx, conn, sql, true)
			}
		}
	}
	if err != nil {
		if l.halfBegun(ctx, conn) {
			_ = rollback(ctx, conn) // err says more
		}
		if SQLState(err) == readOnlyTransaction && !l.recovering() && !conn.IsClosed() {
			l.tx.readOnly, l.tx.begun = true, outcome.Begun{} // by default_transaction_read_only
			return beginPlainly(ctx, conn, o)
		}
		if code := SQLState(err); code == insufficientPrivilege || code == undefinedSchema {
			return fmt.Errorf("retrypg: writing to the ledger of commits: %w (the role needs INSERT, SELECT and DELETE on it; the table is made by: %s)", err, c.ledger.Create())
		}
		return err
	}
	token.Begun = l.tx.begun.Began
	l.tx.token = token
	return nil
}

// createLedger makes the table of the tokens.
func (c *core) createLedger(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, c.ledger.Create())
	switch SQLState(err) {
	case duplicateTable, duplicateObject, uniqueViolation: // of the catalog: another connection was faster
		return nil
	}
	return err
}
