package retrypg

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/outcome"
)

// textFacts is what the texts that a user sends in a transaction may have done to it.
type textFacts struct {
	last     string // the text that was sent last
	switched bool   // one may have ended the transaction and begun another, which the server's status does not show
	surely   bool   // it has, unless it failed
	over     bool   // one has ended the transaction

	early    bool     // a question came with BEGIN, and since then nothing but what is in settings
	settings []string // single SETs
	written  uint64   // the bytes that were sent when that was so
}

// maxSettings bounds how many SETs are kept.
const maxSettings = 16

// asked notes that a question came with BEGIN.
func (f *textFacts) asked(written uint64) { f.early, f.written = true, written }

// sending is told of each text before it is sent in a transaction, and of args, whether it has arguments. It notes one after
// which the question for the transaction's id would be one for another transaction, or by which a READ ONLY transaction may
// become read-write. An error means that the text must not be sent.
func (l *link) sending(ctx context.Context, conn *pgx.Conn, sql string, args bool) error {
	if l.tx.last.sent {
		return errCommitSent
	}
	f := &l.tx.texts
	f.last = sql
	if l.status() == 'I' {
		f.over = true
		return nil
	}
	if l.tx.lazy {
		if l.rider.Refused() {
			return l.notBegun()
		}
		l.askWith(sql)
	}
	if f.early {
		if err := l.sendingFirst(ctx, conn, sql, args); err != nil {
			return err
		}
	}
	if may, certain := maySwitchTransaction(sql); may {
		f.switched, f.surely = true, f.surely || certain
	}
	if l.tx.readOnly && mayWrite(sql) {
		l.tx.readOnly = false
	}
	return nil
}

// sendingFirst is sending until the first query. Characteristics of a transaction cannot be changed after a query, and the
// one that came with BEGIN was one. So before such a change the transaction is begun anew, without a question: it has done
// nothing yet but what is repeated here.
func (l *link) sendingFirst(ctx context.Context, conn *pgx.Conn, sql string, args bool) error {
	f := &l.tx.texts
	switch set, characteristic := settingOf(sql); {
	case l.mark() != f.written: // something was sent past us
		f.early = false
	case characteristic:
		f.early = false
		l.tx.begun, l.tx.token, l.tx.late = outcome.Begun{}, nil, true
		again := append([]string{"rollback", beginStatement(l.tx.options)}, f.settings...)
		_, err := conn.Exec(ctx, strings.Join(again, "; "))
		return err
	case set && !args && len(f.settings) < maxSettings:
		f.settings = append(f.settings, strings.TrimRight(sql, "; \t\r\n\f"))
	default:
		f.early = false
	}
	if !f.early {
		f.settings = nil
	}
	return nil
}

// sent is told of a text that was answered.
func (l *link) sent(tag pgconn.CommandTag) {
	f := &l.tx.texts
	f.written = l.mark()
	if l.status() == 'I' {
		return
	}
	// Its last statement has ended a transaction, and one is open: AND CHAIN. The tag of ROLLBACK TO SAVEPOINT is ROLLBACK too.
	if t := tag.String(); t == "COMMIT" || t == "ROLLBACK" && f.surely {
		f.over = true
	}
}

// lostEnd reports whether the connection was lost in a text that may have ended the transaction.
func (l *link) lostEnd() bool {
	return l.pg.IsClosed() && l.status() != 'I' && (l.tx.texts.switched || mayEndTransaction(l.tx.texts.last))
}

// endedByText reports whether a text of the user's has ended the transaction, perhaps to begin another. Where the id of the
// transaction is known, the server is asked.
func (l *link) endedByText(ctx context.Context) bool {
	f, status := &l.tx.texts, l.status()
	switch {
	case status == 'I', f.over, l.lostEnd():
		return true
	case !f.switched, l.pg.IsClosed():
		return false
	case status == 'T' && l.tx.begun.XID != 0:
		if xid, err := outcome.AskXID(ctx, l.pg); err == nil {
			f.over = xid != l.tx.begun.XID
			f.switched = f.over
			return f.over
		}
		return true
	}
	return status != 'T' || f.surely
}
