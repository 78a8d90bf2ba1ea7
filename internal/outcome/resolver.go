package outcome

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Resolver finds out what became of transactions. However many ask at the same time, as after a restart of the server
// under load, it opens one connection, which they use in turns, and which is closed when the last one has its answer. It
// is safe for concurrent use and starts no goroutine.
type Resolver struct {
	open func(context.Context) (server, error)
	turn chan struct{} // holds a value while somebody uses conn

	mu    sync.Mutex
	users int    // guarded by mu: calls of Resolve that have not returned
	conn  server // used by who has the turn; guarded by mu too when users falls to 0
}

// NewResolver returns a Resolver that connects with open, which is to try until it has a connection to a primary, or
// cannot get one, or its context ends.
func NewResolver(open func(context.Context) (*pgx.Conn, error)) *Resolver {
	return newResolver(func(ctx context.Context) (server, error) {
		conn, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return pgServer{conn.PgConn()}, nil
	})
}

func newResolver(open func(context.Context) (server, error)) *Resolver {
	return &Resolver{open: open, turn: make(chan struct{}, 1)}
}

// Waits between two questions about one transaction, the second the ceiling. Chosen: a COMMIT that is on its way takes a
// millisecond or so; one that takes longer is not worth more than ten questions a second.
const (
	minPoll = time.Millisecond
	maxPoll = 100 * time.Millisecond
)

// askTimeout bounds one question and one fence: a connection on which the answer takes longer is given up for another one.
// Chosen: a thousand times what an answer takes.
const askTimeout = time.Second

// closeTimeout bounds telling the server that the connection ends.
const closeTimeout = time.Second

// Resolve asks until there is an answer or ctx, which must have a deadline, ends: the answer is then Unknown with what was
// said last.
func (r *Resolver) Resolve(ctx context.Context, q *Question) Answer {
	r.enter()
	defer r.leave(ctx)
	c := call{resolver: r, q: q}
	for poll := minPoll; !c.step(ctx); poll = min(2*poll, maxPoll) {
		wait := time.NewTimer(poll/2 + rand.N(poll/2+1))
		select {
		case <-ctx.Done():
			wait.Stop()
			return c.result()
		case <-wait.C:
		}
	}
	return c.result()
}

// call is one call of Resolve.
type call struct {
	resolver     *Resolver
	q            *Question
	said         Answer // by the last reply
	err          error  // of asking since the last reply
	asked        int
	fenced       bool
	unreplicated bool
	since        time.Time // when the transaction was first found in progress
}

// result is the answer as of now.
func (c *call) result() Answer {
	a := c.said
	a.Asked, a.Fenced = c.asked, c.fenced
	a.Unreplicated = c.unreplicated && a.Verdict == Committed
	if a.Verdict == Unknown {
		a.Err = c.err
		if a.Reason == "" {
			a.Reason = "the server could not be asked"
		}
	}
	return a
}

// step asks once. It reports whether the answer is final.
func (c *call) step(ctx context.Context) (final bool) {
	r := c.resolver
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		c.err = ctx.Err()
		return true
	}
	defer func() { <-r.turn }()
	if r.conn == nil {
		if r.conn, c.err = r.open(ctx); c.err != nil {
			return true // open has tried for as long as there is hope
		}
	}
	keep, final := c.ask(ctx)
	if !keep {
		r.drop(ctx)
	}
	return final
}

// ask asks over the open connection, and ends the transaction if that is due.
func (c *call) ask(ctx context.Context) (keep, final bool) {
	turn, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c.asked++
	var last reply
	if last, c.err = c.resolver.conn.ask(turn, c.q); c.err != nil {
		return false, hopeless(c.err)
	}
	answer, next := c.q.judge(last)
	c.said = answer
	switch next {
	case decided:
		return true, true
	case askOthers:
		return false, false
	}
	if c.since.IsZero() {
		c.since = time.Now()
	}
	if waited := time.Since(c.since); waited >= fenceIdleAfter && c.q.same(last) {
		deadline, _ := ctx.Deadline()
		return c.fence(turn, waited >= time.Duration(fenceActiveShare*float64(deadline.Sub(c.since)))), false
	}
	return true, false
}

// fence ends the transaction.
func (c *call) fence(ctx context.Context, active bool) (keep bool) {
	fenced, unreplicated, err := c.resolver.conn.fence(ctx, c.q, active)
	if err != nil {
		c.err = err
		return code(err) != "" // the server does not allow it: the transaction may end by itself
	}
	c.fenced = c.fenced || fenced
	c.unreplicated = c.unreplicated || fenced && unreplicated
	return true
}

// hopeless reports whether the server refuses the question itself: no permission, no such table or function.
func hopeless(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && strings.HasPrefix(pgErr.Code, "42") || errors.Is(err, errAnswer)
}

func (r *Resolver) enter() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users++
}

// leave closes the connection if nobody needs it any more.
func (r *Resolver) leave(ctx context.Context) {
	r.mu.Lock()
	r.users--
	var conn server
	if r.users == 0 {
		conn, r.conn = r.conn, nil
	}
	r.mu.Unlock()
	closeServer(ctx, conn)
}

func (r *Resolver) drop(ctx context.Context) {
	r.mu.Lock()
	conn := r.conn
	r.conn = nil
	r.mu.Unlock()
	closeServer(ctx, conn)
}

func closeServer(ctx context.Context, conn server) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	conn.close(ctx)
}
