package retrypg

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/internal/outcome"
	"github.com/retrypg/retrypg/metrics"
)

// minCommitCheck is for how long a lost COMMIT is asked about although its context has ended, or ends earlier. Chosen: to
// tell the truth is worth some seconds; a server that is there answers in milliseconds, and one whose backend has to be
// terminated first, or that recovers from a crash, mostly within two seconds.
const minCommitCheck = 3 * time.Second

// settleLost finds out what became of a COMMIT whose answer was lost. cause is what came in its place.
func (c *core) settleLost(ctx context.Context, conn *pgx.Conn, l *link, query string, cause error) (verdict, error) {
	facts := &l.tx
	switch {
	case facts.texts.switched || facts.texts.over || query != plainCommit:
		facts.mute = muteSwitch
	case facts.readOnly:
		return verdictNotApplied, &notAppliedError{why: "it was READ ONLY", err: cause}
	case facts.mute == muteStandby && l.stillOnStandby():
		return verdictNotApplied, &notAppliedError{why: "it ran on a hot standby, where nothing can be written", err: cause}
	}
	asker, done, err := c.asker(conn)
	if err != nil {
		facts.mute = err.Error()
	}
	defer done()
	unknown := facts.unknown(cause)
	ctx, cancel := c.checkContext(ctx)
	defer cancel()
	switch asker.check(ctx, unknown, facts.wishes) {
	case outcome.Committed:
		return verdictCommitted, nil
	case outcome.NotApplied:
		return verdictNotApplied, &notAppliedError{why: "asked about it, the server says so", err: cause}
	}
	return verdictUnknown, unknown
}

// stillOnStandby reports whether the transaction, which was begun on a hot standby, can have written nothing: it is READ
// ONLY, until after a promotion the caller makes it read-write, before its first query. The server tells of a promotion with
// its next answer. Behind a pooler the question in BEGIN was that query.
func (l *link) stillOnStandby() bool {
	if l.pooled {
		return l.tx.begun.Server.Standby
	}
	return l.pg.ParameterStatus("in_hot_standby") == "on"
}

// asker returns the core that finds out about a transaction on conn: c, or one for this connection alone where c belongs
// to no database in particular.
func (c *core) asker(conn *pgx.Conn) (asker *core, done func(), err error) {
	if c.dial != nil {
		return c, func() {}, nil
	}
	own, err := newForeignCore()
	if err != nil {
		return c, func() {}, err
	}
	cfg := conn.Config()
	own.dialWith(cfg, primaryDialer(cfg, &own.order, connectHooks{}))
	return own, func() { _ = own.close() }, nil // there is nothing of its telemetry to unregister
}

// dialWith lets c connect to a primary with dial, one attempt each time, to ask about transactions. cfg is what its other
// connections are made with: where they need no primary, a primary that is away must not keep them waiting.
func (c *core) dialWith(cfg *pgx.ConnConfig, dial func(context.Context) (*pgx.Conn, error)) {
	c.dial, c.primaryGate = dial, c.gate
	if !needsPrimary(cfg) {
		c.primaryGate = endpoint.New(c.gateOptions())
	}
	c.resolver = outcome.NewResolver(c.openPrimary)
}

// openPrimary connects to a primary, however many attempts that takes, within ctx, which is that of a check and heeds Close.
// The breaker is not asked: it is there to keep load from a server in trouble, and this is one connection.
func (c *core) openPrimary(ctx context.Context) (conn *pgx.Conn, err error) {
	how := reaching{kind: metrics.OpConnect, undo: func() {
		if conn != nil {
			closeNow(conn)
		}
	}}
	err = c.reachThrough(ctx, c.primaryGate, how, func(ctx context.Context) error {
		conn, err = c.dial(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// checkContext returns the context of a check: bounded by ctx and by Close, but not by less than minCommitCheck, and
// bounded by the settings where ctx has no deadline.
func (c *core) checkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	least := time.Now().Add(minCommitCheck)
	deadline := time.Now().Add(max(c.tuned.Load().set.commitCheckMaxElapsed, minCommitCheck))
	if d, ok := ctx.Deadline(); ok {
		deadline = d
	}
	if ctx.Err() != nil || deadline.Before(least) {
		deadline = least
	}
	bounded, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	check := &checkContext{Context: bounded, least: least}
	hurry := func() {
		check.hurried.Store(true)
		timer := time.AfterFunc(time.Until(least), cancel)
		context.AfterFunc(bounded, func() { timer.Stop() })
	}
	stop := context.AfterFunc(ctx, hurry) // cancelled meanwhile, or at its deadline
	stopClose := context.AfterFunc(c.ctx, hurry)
	return check, func() { stop(); stopClose(); cancel() }
}

// checkContext is the context of a check, whose deadline comes nearer when that of the caller ends: the time that is left
// decides how soon a busy transaction is ended.
type checkContext struct {
	context.Context
	least   time.Time
	hurried atomic.Bool
}

// Deadline implements context.Context.
func (c *checkContext) Deadline() (time.Time, bool) {
	deadline, ok := c.Context.Deadline()
	if c.hurried.Load() && c.least.Before(deadline) {
		deadline = c.least
	}
	return deadline, ok
}

// unknown is what is known of a transaction before the server is asked about it.
func (f *txFacts) unknown(cause error) *CommitUnknownError {
	e := &CommitUnknownError{Err: cause, Check: f.wishes.check, Reason: f.mute}
	if f.mute != "" {
		return e
	}
	server := f.begun.Server
	e.XID, e.PID = f.begun.XID, server.PID
	e.Server = ServerIdentity{SystemIdentifier: server.System, Timeline: server.Timeline, Epoch: server.Epoch.String()}
	if f.token != nil {
		e.Token = f.token.String()
	}
	return e
}

// question is what there is to ask the server about e, or nil.
func (e *CommitUnknownError) question() *outcome.Question {
	q := &outcome.Question{XID: e.XID}
	q.Server = outcome.Identity{
		System: e.Server.SystemIdentifier, Timeline: e.Server.Timeline, Epoch: outcome.ParseEpoch(e.Server.Epoch), PID: e.PID,
	}
	if token, ok := outcome.ParseToken(e.Token); ok {
		q.Token = &token
		return q
	}
	if q.XID == 0 || !q.Server.Known() {
		return nil
	}
	return q
}

// check finds out what became of the transaction of unknown, completes unknown, and tells hooks and telemetry, unless the
// caller's own check will be asked, which then is to tell.
func (c *core) check(ctx context.Context, unknown *CommitUnknownError, w txWishes) outcome.Verdict {
	began := time.Now()
	op, ctx, _ := c.start(ctx, metrics.OpCommitCheck, w.name, false) // the breaker is not asked
	returned := false
	defer func() {
		if !returned { // a hook of connecting panicked
			op.panicked(ctx, try{})
		}
	}()
	answer := outcome.Answer{Reason: unknown.Reason}
	q := unknown.question()
	if q != nil {
		answer = c.resolver.Resolve(ctx, q)
	}
	returned = true
	unknown.Reason, unknown.Asked, unknown.asking = answer.Reason, unknown.Asked+answer.Asked, answer.Err
	unknown.askedFor = time.Since(began)
	op.attempts = answer.Asked
	op.span.CommitChecked(answer.Verdict.String(), answer.Asked, answer.Fenced)
	if answer.Verdict == outcome.Unknown {
		op.endStopped(ctx, unknown, "commit_unknown")
	} else {
		op.end(ctx, nil)
	}
	unknown.untold = w.verify && answer.Verdict == outcome.Unknown && (q == nil || answer.Over)
	if !unknown.untold {
		c.tellChecked(ctx, unknown, w.name, answer)
	}
	return answer.Verdict
}

// tellChecked tells what became of a COMMIT whose answer was lost.
func (c *core) tellChecked(ctx context.Context, unknown *CommitUnknownError, name string, answer outcome.Answer) {
	word := answer.Verdict.String()
	c.rec.CommitCheck(ctx, word)
	if hook := c.set.hooks.CommitChecked; hook != nil {
		hook(ctx, CommitCheckInfo{
			Name: name, Outcome: word, Asked: unknown.Asked, Fenced: answer.Fenced, Elapsed: unknown.askedFor, Err: unknown.Err,
		})
	}
	if answer.Verdict == outcome.Unknown {
		c.tellUnknown(ctx, unknown)
	}
	if answer.Unreplicated {
		c.tellUnreplicated(ctx, nil)
	}
}

// tellUnreplicated tells of a transaction that committed although the wait for its synchronous standbys was ended.
func (c *core) tellUnreplicated(ctx context.Context, n *pgconn.Notice) {
	c.rec.CommitUnreplicated(ctx)
	c.log.CommitUnreplicated()
	if hook := c.set.hooks.CommitUnreplicated; hook != nil {
		hook(ctx, n)
	}
}

// notAppliedError says that a transaction was certainly not applied although COMMIT was due: it was not sent, or its answer
// was lost.
type notAppliedError struct {
	why string // after a lost answer; empty if COMMIT was not sent
	err error  // what came in place of the answer, or kept COMMIT from being sent
}

func (e *notAppliedError) Error() string {
	if e.why == "" {
		return fmt.Sprintf("transaction not applied: COMMIT was not sent: %v", e.err)
	}
	return fmt.Sprintf("transaction not applied (%s), it can be run again: the answer to COMMIT was lost: %v", e.why, e.err)
}

func (e *notAppliedError) Unwrap() error { return e.err }
