package outcome

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// server is a connection that questions are asked over.
type server interface {
	// ask asks once. An error is that of the connection, or what the server says against the question itself.
	ask(ctx context.Context, q *Question) (reply, error)
	// fence terminates the transaction's server process, if it still has the transaction and is idle, or with active also
	// if it is busy; never while it waits for a synchronous standby, when it has committed already and the end of the
	// wait would make that visible. unreplicated says that it may have begun to wait in this moment.
	fence(ctx context.Context, q *Question, active bool) (fenced, unreplicated bool, err error)
	close(ctx context.Context)
}

// pgServer asks over a connection of pgx.
type pgServer struct{ pc *pgconn.PgConn }

func (s pgServer) close(ctx context.Context) { _ = s.pc.Close(ctx) } // it has served its purpose

func (s pgServer) ask(ctx context.Context, q *Question) (reply, error) {
	if q.Token != nil {
		return s.askToken(ctx, q)
	}
	return s.askXID(ctx, q)
}

// Codes of the errors that are answers.
const (
	invalidParameter    = "22023" // pg_xact_status: the id is in the future
	lockNotAvailable    = "55P03" // lock_timeout
	readOnlyTransaction = "25006"
	notSupported        = "0A000" // on a standby: transaction mode read write
)

func (s pgServer) askXID(ctx context.Context, q *Question) (r reply, err error) {
	v := VersionOf(s.pc)
	// The identity has a statement of its own: the second one may be answered with an ERROR.
	sql := "select " + v.identity() + "; select case when pg_catalog.pg_is_in_recovery() then 'standby' else " + v.status(q.XID) + " end"
	r.status = statusForgotten
	first := true
	err = rows(s.pc.Exec(ctx, sql), func(values [][]byte) error {
		if first {
			first = false
			return r.server.scan(values)
		}
		if len(values) != 1 {
			return errAnswer
		}
		switch text(values[0]) {
		case "in progress":
			r.status = statusInProgress
		case "committed":
			r.status = statusCommitted
		case "aborted":
			r.status = statusAborted
		case "standby":
			r.status, r.server.Standby = statusNone, true
		case "":
		default:
			return errAnswer
		}
		return nil
	})
	if code(err) == invalidParameter && r.server.Known() {
		r.status = statusFuture
		return r, nil
	}
	return r, err
}

// claimWait is how long a claim waits for the transaction that has written the token, in milliseconds. Others may want to
// ask over the same connection.
const claimWait = 20

// askToken asks by the id first, where it is known: only what that leaves open needs the claim, for which all others have
// to wait.
func (s pgServer) askToken(ctx context.Context, q *Question) (reply, error) {
	if q.XID != 0 && q.Server.Known() {
		r, err := s.askXID(ctx, q)
		switch answer, next := q.judge(r); {
		case code(err) != "": // the server does not want to say
		case err != nil:
			return r, err
		case next == askAgain && !q.same(r): // perhaps another transaction with the same id
		case next != decided || answer.Verdict != Unknown:
			return r, nil
		}
	}
	return s.claim(ctx, q)
}

// claim writes the token again and takes it back. The primary key lets that succeed only if the transaction has ended
// without committing, and makes it wait as long as the transaction has not ended.
func (s pgServer) claim(ctx context.Context, q *Question) (r reply, err error) {
	v, known := VersionOf(s.pc), q.Server.Known()
	// READ COMMITTED: at a higher level a conflict with a later commit is an error.
	sql := "begin isolation level read committed read write; set local lock_timeout = " + strconv.Itoa(claimWait) +
		"; select (extract(epoch from pg_catalog.now()) * 1000000)::bigint - " + strconv.FormatInt(q.Token.Begun, 10) +
		", pg_catalog.current_database()"
	if known {
		sql += ", " + v.identity()
	}
	sql += "; " + q.Token.Table.claim(*q.Token) + "; rollback"
	var age int64
	first, elsewhere := true, false
	r.byToken, r.status = true, statusCommitted
	err = rows(s.pc.Exec(ctx, sql), func(values [][]byte) (err error) {
		if !first {
			r.status = statusAborted // the token was not there
			return nil
		}
		first = false
		if len(values) < 2 {
			return errAnswer
		}
		if age, err = strconv.ParseInt(text(values[0]), 10, 64); err != nil {
			return errAnswer
		}
		elsewhere = text(values[1]) != q.Token.Database
		if known {
			return r.server.scan(values[2:])
		}
		return nil
	})
	if err != nil && s.pc.TxStatus() != 'I' && !s.pc.IsClosed() {
		if _, rerr := s.pc.Exec(ctx, "rollback").ReadAll(); rerr != nil {
			return r, rerr
		}
	}
	switch code(err) {
	case lockNotAvailable:
		r.status = statusInProgress
		err = nil
	case readOnlyTransaction, notSupported:
		r.server.Standby = true
		return r, nil
	}
	switch {
	case elsewhere && !s.pc.IsClosed(): // also where there is no such table
		r.status = statusElsewhere
		return r, nil
	case r.status == statusAborted && age > q.Token.Keep.Microseconds()/2:
		// An absent token proves something only as long as no clean-up can have removed it; half the time is left for
		// clocks of servers that differ.
		r.status = statusExpired
	}
	return r, err
}

func (s pgServer) fence(ctx context.Context, q *Question, active bool) (fenced, unreplicated bool, err error) {
	state := ""
	if !active {
		state = " and state <> 'active'"
	}
	// backend_xid shows the lower half of the id. The login role sees the state of its processes, also where the program's
	// hooks have set another role.
	sql := fmt.Sprintf("begin; set local role none; select pg_catalog.pg_terminate_backend(pid), state = 'active' and pg_catalog.current_setting('synchronous_standby_names') <> ''"+
		" from pg_catalog.pg_stat_activity where pid = %d and backend_xid = '%d'::xid and wait_event is distinct from 'SyncRep'%s; commit",
		q.Server.PID, uint32(q.XID), state)
	err = rows(s.pc.Exec(ctx, sql), func(values [][]byte) error {
		if len(values) != 2 {
			return errAnswer
		}
		fenced, unreplicated = text(values[0]) == "t", text(values[1]) == "t"
		return nil
	})
	if err != nil && s.pc.TxStatus() != 'I' && !s.pc.IsClosed() {
		if _, rerr := s.pc.Exec(ctx, "rollback").ReadAll(); rerr != nil {
			return fenced, unreplicated, rerr
		}
	}
	return fenced, unreplicated, err
}

func code(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
