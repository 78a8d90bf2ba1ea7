package retrypg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/outcome"
)

// Codes of the errors of a table that is not there, or that another connection has made in the same moment.
const (
	undefinedTable        = "42P01"
	undefinedSchema       = "3F000"
	duplicateTable        = "42P07"
	duplicateObject       = "42710"
	uniqueViolation       = "23505"
	insufficientPrivilege = "42501"
)

// newTokenFor returns the token of a transaction on l, and the query that writes it.
func (c *core) newTokenFor(l *link) (*outcome.Token, string) {
	token := &outcome.Token{Table: c.ledger, ID: newToken(), Keep: c.set.ledgerRetention}
	return token, outcome.VersionOf(l.pg).TokenQuery(*token, l.server.Known() && !l.onStandby())
}

// wrote keeps a token that was written.
func (l *link) wrote(token *outcome.Token) {
	token.Begun, token.Database = l.tx.begun.Began, l.tx.begun.Database
	l.tx.token, l.ledger = token, true
}

// beginToken begins a transaction and writes its token. The table is made where it is missing.
func (c *core) beginToken(ctx context.Context, conn *pgx.Conn, l *link) error {
	token, insert := c.newTokenFor(l)
	sql := beginStatement(l.tx.options) + "; " + insert
	err := l.question(ctx, conn, sql, "BEGIN", true)
	if SQLState(err) == undefinedTable && l.halfBegun(ctx, conn) {
		if err = rollback(ctx, conn); err == nil {
			if err = c.createLedger(ctx, conn); err == nil {
				err = l.question(ctx, conn, sql, "BEGIN", true)
			}
		}
	}
	if err == nil {
		l.wrote(token)
		return nil
	}
	l.tx.begun = outcome.Begun{}
	if l.halfBegun(ctx, conn) {
		_ = rollback(ctx, conn) // err says more
	}
	if SQLState(err) == readOnlyTransaction && !conn.IsClosed() && !l.inRecovery(ctx) {
		l.tx.readOnly, l.tx.mute = true, muteReadOnly // by default_transaction_read_only
		return l.beginPlainly(ctx, conn)
	}
	return c.ledgerError(err)
}

// ledgerError says what is missing.
func (c *core) ledgerError(err error) error {
	switch SQLState(err) {
	case insufficientPrivilege, undefinedSchema, undefinedTable:
		return fmt.Errorf("retrypg: writing to the ledger of commits: %w (the role needs INSERT, SELECT and DELETE on it; the table is made by: %s)", err, c.ledger.Create())
	}
	return err
}

// haveLedger makes the table of the tokens if it is not there.
func (c *core) haveLedger(ctx context.Context, conn *pgx.Conn, l *link) error {
	if l.ledger {
		return nil
	}
	there := false
	if err := conn.QueryRow(ctx, c.ledger.Exists(), pgx.QueryExecModeSimpleProtocol).Scan(&there); err != nil {
		return err
	}
	if !there {
		if err := c.createLedger(ctx, conn); err != nil {
			return c.ledgerError(err)
		}
	}
	l.ledger = true
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
