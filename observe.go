package retrypg

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg/metrics"
)

// observe lets the state of the server, budget and breaker be read as metrics, until close. It is for the cores of what users open and
// close: the state of others would hide theirs.
func (c *core) observe() {
	c.rec.ObserveServer(func() (up int64, known bool) {
		away, known := c.gate.Away()
		if !away {
			up = 1
		}
		return up, known
	})
	if c.budget != nil {
		c.rec.ObserveBudget(c.budget.Tokens)
	}
	if c.contention != nil {
		c.rec.ObserveAdmission(func() metrics.Admission {
			s := c.contention.State()
			return metrics.Admission{Limit: int64(s.Limit), Waiting: int64(s.Waiting)}
		})
	}
	if c.breaker != nil {
		c.rec.ObserveBreaker(func() int64 { return int64(c.breaker.State()) })
	}
}

// observePool lets the connections of a Pool be read as metrics, until close.
func (c *core) observePool(pool *pgxpool.Pool) {
	c.rec.ObservePool(func() metrics.PoolConnections {
		s := pool.Stat()
		return metrics.PoolConnections{Idle: int64(s.IdleConns()), Used: int64(s.AcquiredConns() + s.ConstructingConns()), Max: int64(s.MaxConns())}
	})
}

func (c *core) serverDown(err error) {
	class := Classify(err)
	if !c.quiet.Load() {
		c.log.Down(metrics.OpConnect, class.Reason)
	}
	if c.set.hooks.ServerDown != nil {
		c.set.hooks.ServerDown(err)
	}
}

func (c *core) serverUp(after time.Duration, attempts int) {
	// Other handles may share the gate, and each one that has met the outage counts it.
	if c.met.Swap(false) && !c.quiet.Load() {
		c.rec.Outage(context.Background(), after)
	}
	if !c.quiet.Load() {
		c.log.Up(after)
	}
	if c.set.hooks.ServerUp != nil {
		c.set.hooks.ServerUp(after, attempts)
	}
}

// tellUnknown tells of a COMMIT whose outcome is not known, which err is about.
func (c *core) tellUnknown(ctx context.Context, err error) {
	var unknown *CommitUnknownError
	if !errors.As(err, &unknown) {
		return
	}
	c.log.CommitUnknown(SQLState(unknown))
	if c.set.hooks.CommitUnknown != nil {
		c.set.hooks.CommitUnknown(ctx, unknown)
	}
}

// fenced tells that a server has lost its role: its connections are dropped, each when it is to be used next.
func (c *core) fenced(err error) {
	reason := SQLState(err)
	if reason == "" {
		reason = "silent"
	}
	c.log.Fenced(reason)
	if hook := c.set.hooks.ServerFenced; hook != nil {
		hook(err)
	}
}

func (c *core) evicted(ctx context.Context, reason string) {
	c.rec.Evicted(ctx, reason)
	if c.set.hooks.Evicted != nil {
		c.set.hooks.Evicted(reason)
	}
}

func telemetryOptions(s settings, cfg *pgconn.Config) metrics.Options {
	o := metrics.Options{MeterProvider: s.meterProvider, TracerProvider: s.tracerProvider, Attributes: s.attributes}
	if cfg != nil {
		o.ServerAddress, o.ServerPort = cfg.Host, int(cfg.Port)
		if network, _ := pgconn.NetworkAddress(cfg.Host, cfg.Port); network == "unix" {
			o.ServerPort = 0
		}
	}
	return o
}
