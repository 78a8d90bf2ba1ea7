package retrypg

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg/internal/endpoint"
	"github.com/retrypg/retrypg/metrics"
)

// Pool is a *pgxpool.Pool that rides out what can be ridden out: taking a connection waits for a server that is away,
// within the context or, where that has no deadline, within retry_connect_max_elapsed; a connection that was found dead
// before anything was sent is exchanged; COMMIT is judged as by WithTx. It is safe for concurrent use.
//
// What pgxpool returns outside of these methods (Stat, Config, AcquireAllIdle and so on) is pgxpool's own. Its count of new
// connections is higher than what was dialled: it counts what is looked for among the idle ones, too.
type Pool struct {
	*pgxpool.Pool
	core     *core
	maxConns int
}

// NewPool makes a pool from a DSN with the keys of the package documentation and pgxpool's pool_* keys. Like pgxpool.New
// it does not wait for a connection: the connections of pool_min_conns are opened in the background, with the values of ctx
// but without its end.
func NewPool(ctx context.Context, dsn string, opts ...Option) (*Pool, error) {
	cfg, s, err := parsePoolDSN(dsn)
	if err != nil {
		return nil, err
	}
	return newPool(ctx, cfg, s, opts)
}

// NewPoolWithConfig makes a pool from a configuration of pgxpool.ParseConfig, whose hooks are kept and called. It changes
// cfg, which must not be used for another pool. Our keys are taken out of cfg's RuntimeParams, where pgxpool.ParseConfig
// leaves them.
func NewPoolWithConfig(ctx context.Context, cfg *pgxpool.Config, opts ...Option) (*Pool, error) {
	s, err := poolSettings(cfg)
	if err != nil {
		return nil, err
	}
	return newPool(ctx, cfg, s, opts)
}

func newPool(ctx context.Context, cfg *pgxpool.Config, s settings, opts []Option) (*Pool, error) {
	core, err := configurePool(cfg, s, opts)
	if err != nil {
		return nil, err
	}
	before := cfg.BeforeConnect
	cfg.BeforeConnect = func(ctx context.Context, attempt *pgx.ConnConfig) error {
		if ctx.Value(idleOnlyKey{core}) != nil {
			return errMustConnect
		}
		if r, ok := ctx.Value(reachKey{core}).(*poolReach); ok {
			if _, down := core.gate.Down(); down && !core.gate.Admitted(ctx) {
				return endpoint.ErrDown // it has waited for its place in the pool meanwhile
			}
			r.placed.Store(true)
			r.connects.Store(true)
		}
		return before(ctx, attempt)
	}
	shouldPing := cfg.ShouldPing
	cfg.ShouldPing = func(ctx context.Context, params pgxpool.ShouldPingParams) bool { // pgxpool asks this of each idle connection
		if r, ok := ctx.Value(reachKey{core}).(*poolReach); ok {
			r.placed.Store(true)
		}
		return shouldPing(ctx, params)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		_ = core.close() // it was never used
		return nil, err
	}
	core.observe()
	core.observePool(pool)
	return &Pool{Pool: pool, core: core, maxConns: int(cfg.MaxConns)}, nil
}

// idleOnly is the context of an Acquire that is to take an idle connection, or to wait for one, but not to connect:
// connecting is for the gate, and pgxpool calls BeforeConnect exactly where it would connect. It is that of one Pool alone: a
// user's hook may go to another one with it.
type idleOnly struct {
	context.Context
	core *core
}

type idleOnlyKey struct{ core *core }

// reachKey marks the context of an Acquire that connects through the gate, with a *poolReach; pgxpool also connects in the
// background.
type reachKey struct{ core *core }

// poolReach is what is seen of such an Acquire.
type poolReach struct {
	placed   atomic.Bool // it has a place in the pool
	connects atomic.Bool // it makes a connection
}

// placeWait is how long an Acquire that has its turn at the gate may wait for a place in the pool. Chosen: pgxpool takes
// microseconds where there is one.
const placeWait = 20 * time.Millisecond

func (c *idleOnly) Value(key any) any {
	if key == (idleOnlyKey{c.core}) {
		return true
	}
	return c.Context.Value(key)
}

var errMustConnect = errors.New("retrypg: no idle connection")

// acquire is pgxpool's Acquire, from which the panic of a hook goes on.
func (p *Pool) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := p.Pool.Acquire(ctx)
	if err == nil { // nothing is allocated then
		return conn, nil
	}
	var panicked *hookPanicError
	if errors.As(err, &panicked) {
		panic(panicked.value)
	}
	return nil, err
}

// acquireIdle is acquire for a connection that is there.
func (p *Pool) acquireIdle(ctx context.Context) (*pgxpool.Conn, error) {
	idle := idleSlabs.next()
	*idle = idleOnly{ctx, p.core}
	return p.acquire(idle)
}

func (p *Pool) retrypgCore() *core { return p.core }

// Close closes the pool and ends the waits for the server of all its callers, with ErrClosed. It waits, as pgxpool does,
// until all connections have been given back.
func (p *Pool) Close() {
	_ = p.core.close() // telemetry's unregistering: nothing that a caller could act upon
	p.Pool.Close()
}

// Acquire returns a connection, however many attempts that takes; see Connector.Connect for the bounds and errors of connecting.
// Where all connections of the pool are in use it waits for one as pgxpool does, bounded by ctx, whose error is then pgxpool's;
// a place that others took while it was about to connect it waits for within the bounds of connecting.
func (p *Pool) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	if p.core.closed.Load() {
		return nil, ErrClosed
	}
	conn, err := p.acquireIdle(ctx)
	if errors.Is(err, errMustConnect) {
		conn, err = p.connect(ctx)
	}
	return conn, p.acquireError(err)
}

// connect gives a connection where none is idle. It is apart from Acquire so that nothing is allocated where one is.
func (p *Pool) connect(ctx context.Context) (conn *pgxpool.Conn, err error) {
	// While the server lets nobody in, what others give back serves those that wait.
	stock := &endpoint.Stock{
		Has: func() bool { return p.Stat().IdleConns() > 0 },
		Take: func(ctx context.Context) (err error) {
			if conn, err = p.acquireIdle(ctx); errors.Is(err, errMustConnect) {
				return endpoint.ErrEmpty
			}
			return err
		},
	}
	how := reaching{kind: metrics.OpConnect, refusable: true, stock: stock, undo: func() {
		if conn != nil {
			conn.Release()
		}
	}}
	err = p.core.reach(ctx, how, func(ctx context.Context) (err error) {
		var r poolReach
		ctx, cancel := context.WithCancelCause(context.WithValue(ctx, reachKey{p.core}, &r))
		defer cancel(nil)
		if p.core.gate.Admitted(ctx) {
			defer time.AfterFunc(placeWait, func() {
				if !r.placed.Load() {
					cancel(endpoint.ErrNoPlace)
				}
			}).Stop()
		}
		switch conn, err = p.acquire(ctx); {
		case err == nil && !r.connects.Load():
			return endpoint.ErrInStock
		case err != nil && errors.Is(context.Cause(ctx), endpoint.ErrNoPlace):
			return endpoint.ErrNoPlace
		}
		return err
	})
	return conn, err
}

// acquireError makes what Close ended match ErrClosed.
func (p *Pool) acquireError(err error) error {
	if err == nil || !p.core.closed.Load() || errors.Is(err, ErrClosed) {
		return err
	}
	return errors.Join(ErrClosed, err)
}

// AcquireFunc acquires a connection, calls f with it and gives it back.
func (p *Pool) AcquireFunc(ctx context.Context, f func(*pgxpool.Conn) error) error {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return f(conn)
}

// Ping acquires a connection and sends an empty statement.
func (p *Pool) Ping(ctx context.Context) error {
	_, err := p.Exec(ctx, "-- ping")
	return err
}

// Exec is pgxpool's Exec; a plain statement that was rolled back, by a conflict, because its server is a standby now, or, without
// arguments, by the end of its server process, is run again, as by database/sql.
func (p *Pool) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	s := poolStatement{pool: p, way: byExec, sql: sql, args: args}
	err := s.run(ctx)
	return s.tag, err
}

// Query is pgxpool's Query on a connection that Acquire gives. It waits for the first row; until then a plain statement is
// run again as by Exec with arguments. Errors that come with later rows are the caller's.
func (p *Pool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	s := poolStatement{pool: p, way: byQuery, sql: sql, args: args}
	switch err := s.run(ctx); {
	case err != nil && s.asked: // the server's answer: as with pgx, its place is in the rows
		return failedRows{err}, nil
	case err != nil:
		return failedRows{err}, err
	}
	return s.rows, nil
}

// QueryRow is pgxpool's QueryRow; a plain statement is run again as by Exec with
// arguments. It is sent by Scan.
func (p *Pool) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	r := rowSlabs.next()
	*r = pooledRow{pool: p, ctx: ctx, sql: sql, args: args}
	return r
}

// SendBatch is pgxpool's SendBatch on a connection that Acquire gives.
func (p *Pool) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	sent := false
	defer func() {
		if !sent { // an argument's encoder panicked
			conn.Release()
		}
	}()
	results := &pooledBatch{BatchResults: conn.SendBatch(ctx, b), conn: conn}
	sent = true
	return results
}

// CopyFrom is pgxpool's CopyFrom on a connection that Acquire gives. It is not run again: its source is used up.
func (p *Pool) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	conn, err := p.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	return conn.CopyFrom(ctx, table, columns, source)
}

// Begin is BeginTx with the server's defaults.
func (p *Pool) Begin(ctx context.Context) (pgx.Tx, error) { return p.BeginTx(ctx, pgx.TxOptions{}) }

// BeginTx begins a transaction. A BEGIN that meets a dead connection is sent on another. Commit of the transaction returns
// nil if and only if it committed, and a *CommitUnknownError where nothing is known. As with pgxpool, the connection is
// given back by Commit or Rollback.
func (p *Pool) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	wishes, ctx := wishesFrom(ctx)
	t := &pgxTx{core: p.core, wishes: wishes}
	if err := t.beginOn(ctx, p.Acquire, o); err != nil {
		return nil, err
	}
	return t, nil
}
