package retrypg

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
	case facts.switched || query != plainCommit:
		facts.mute = muteSwitch
	case facts.readOnly:
		return verdictNotApplied, &notAppliedError{why: "it was READ ONLY", err: cause}
	case facts.mute == muteStandby && l.pg.ParameterStatus("in_hot_standby") == "on":
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
	own.dialWith(func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, toPrimary(cfg)) })
	return own, func() { _ = own.close() }, nil // there is nothing of its telemetry to unregister
}

// dialWith lets c connect to a primary with dial, one attempt each time, to ask about transactions.
func (c *core) dialWith(dial func(context.Context) (*pgx.Conn, error)) {
	c.dial = dial
	c.resolver = outcome.NewResolver(c.openPrimary)
}

// primaryDialer connects to a primary with cfg, calling the hooks, which may be nil, that its connections are made with.
func primaryDialer(cfg *pgx.ConnConfig, before func(context.Context, *pgx.ConnConfig) error, after func(context.Context, *pgx.Conn) error,
) func(context.Context) (*pgx.Conn, error) {
	cfg = toPrimary(cfg)
	return func(ctx context.Context) (*pgx.Conn, error) {
		cfg := cfg.Copy()
		if before != nil {
			if err := before(ctx, cfg); err != nil {
				return nil, err
			}
		}
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil || after == nil {
			return conn, err
		}
		if err := after(ctx, conn); err != nil {
			closeNow(conn)
			return nil, err
		}
		return conn, nil
	}
}

// toPrimary returns a copy of cfg for a connection to a primary, whatever role cfg asks for. One attempt at one host is
// bounded, also where cfg is another's.
func toPrimary(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	cfg.ConnectTimeout = orDefault(cfg.ConnectTimeout, DefaultConnectTimeout)
	cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	return cfg
}

// openPrimary connects to a primary, however many attempts that takes, within ctx. The breaker is not asked: it is there
// to keep load from a server in trouble, and this is one connection.
func (c *core) openPrimary(ctx context.Context) (conn *pgx.Conn, err error) {
	err = c.reach(ctx, metrics.OpConnect, false, func(ctx context.Context) error {
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
	deadline := time.Now().Add(max(c.set.commitCheckMaxElapsed, minCommitCheck))
	if d, ok := ctx.Deadline(); ok && d.After(least) {
		deadline = d
	}
	if ctx.Err() != nil {
		deadline = least
	}
	check, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	hurry := func() {
		timer := time.AfterFunc(time.Until(least), cancel)
		context.AfterFunc(check, func() { timer.Stop() })
	}
	stop := context.AfterFunc(ctx, hurry) // cancelled meanwhile, or at its deadline
	stopClose := context.AfterFunc(c.ctx, hurry)
	return check, func() { stop(); stopClose(); cancel() }
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
func (e *CommitUnknownError) question(keep time.Duration) *outcome.Question {
	q := &outcome.Question{XID: e.XID}
	q.Server = outcome.Identity{
		System: e.Server.SystemIdentifier, Timeline: e.Server.Timeline, Epoch: outcome.ParseEpoch(e.Server.Epoch), PID: e.PID,
	}
	if token, ok := outcome.ParseToken(e.Token); ok {
		token.Keep = keep
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
	q := unknown.question(c.set.ledgerRetention)
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

// notAppliedError says that COMMIT was sent, its answer lost, and the transaction certainly not applied.
type notAppliedError struct {
	why string
	err error // what came in place of the answer
}

func (e *notAppliedError) Error() string {
	return fmt.Sprintf("transaction not applied (%s), it can be run again: the answer to COMMIT was lost: %v", e.why, e.err)
}

func (e *notAppliedError) Unwrap() error { return e.err }
