package demo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// The bank: few enough accounts for conflicts, enough for most transfers to pass each other.
const (
	accounts       = 64
	initialBalance = 1_000_000
)

// standbyName is the standby's cluster_name and so its name in synchronous_standby_names.
const standbyName = "standby"

// setUpTimeout bounds the start of both servers, a download of PostgreSQL aside.
const setUpTimeout = 2 * time.Minute

// stage is the servers and what is in front of them.
type stage struct {
	primary, standby *pgtest.Cluster
	lanes            []*lane
}

// lane is one program's own way to the servers: a database, so that nothing of one program is in another's way, and a
// proxy before each server, so that a fault aimed at one message hits each program alike.
type lane struct {
	database      string
	first, second *pgtest.Proxy // before the primary and before the standby
	cutAfter      int           // COMMITs cut after the server had run them
	cutBefore     int           // COMMITs cut before the server had them
	killed        int           // connections that the server was told to end
	aimed         []aimed       // rules of the phase that is running
}

// dsn names both servers, and asks for the one that takes writes.
func (l *lane) dsn() string {
	return pgtest.DSN([]string{l.first.Addr(), l.second.Addr()},
		"dbname="+l.database, "target_session_attrs=read-write", "connect_timeout=5")
}

// schema makes one bank. The ledger's id is deliberately not unique: a constraint would turn a transfer that is applied
// twice into an error, and the demo wants to count it.
func schema() string {
	return `create table accounts (id int primary key, balance bigint not null) with (fillfactor = 50);
create table ledger (id bigint not null, debit int not null, credit int not null, amount bigint not null);
insert into accounts select n, ` + strconv.Itoa(initialBalance) + ` from generate_series(0, ` + strconv.Itoa(accounts-1) + `) n;`
}

// setUp starts a primary and a synchronous standby, makes the banks, and stops the primary again: the programs begin
// before it is there.
//
// Replication is synchronous so that no acknowledged commit is lost by the failover: else a program would be blamed for
// what asynchronous replication does to everybody. fsync is on while the load runs, because commits are counted over
// crashes; before that it would make each start some seconds longer for nothing.
func setUp(ctx context.Context, opts Options) (_ *stage, err error) {
	installation, err := pgtest.Find(ctx) // may fetch one, which takes the time it takes
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, setUpTimeout)
	defer cancel()
	st := &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	st.primary, err = pgtest.Start(ctx, pgtest.Options{
		Name: "primary", Installation: installation, Log: opts.Log,
		Settings: map[string]string{
			// How long a lock is waited for before the server looks for a deadlock; the default of 1 s would leave
			// time for few.
			"deadlock_timeout": "50ms",
		},
	})
	if err != nil {
		return nil, fmt.Errorf("start the primary: %w", err)
	}
	for _, p := range programKinds {
		if err := st.addLane(ctx, p.database); err != nil {
			return nil, err
		}
	}
	if st.standby, err = st.primary.Standby(ctx, pgtest.Options{Name: standbyName, Log: opts.Log}); err != nil {
		return nil, fmt.Errorf("start the standby: %w", err)
	}
	for _, l := range st.lanes {
		if l.second, err = pgtest.NewProxy(st.standby.Addr()); err != nil {
			return nil, err
		}
	}
	err = forEach([]*pgtest.Cluster{st.primary, st.standby}, func(c *pgtest.Cluster) error { return c.Set(ctx, "fsync", "on") })
	if err != nil {
		return nil, err
	}
	if err := st.primary.Set(ctx, "synchronous_standby_names", standbyName); err != nil {
		return nil, err
	}
	if err := st.primary.WaitStreaming(ctx, standbyName); err != nil {
		return nil, err
	}
	return st, st.primary.StopFast(ctx)
}

func (st *stage) addLane(ctx context.Context, database string) error {
	if err := st.primary.CreateDatabase(ctx, database); err != nil {
		return err
	}
	conn, err := connect(ctx, st.primary, database)
	if err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, schema()).ReadAll()
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("make the bank of %s: %w", database, err)
	}
	l := &lane{database: database}
	st.lanes = append(st.lanes, l)
	if l.first, err = pgtest.NewProxy(st.primary.Addr()); err != nil {
		return err
	}
	return l.first.SetAccept(pgtest.AcceptRefuse)
}

// close stops and removes everything.
func (st *stage) close() error {
	var errs []error
	for _, l := range st.lanes {
		for _, p := range []*pgtest.Proxy{l.first, l.second} {
			if p != nil {
				errs = append(errs, p.Close())
			}
		}
	}
	for _, c := range []*pgtest.Cluster{st.standby, st.primary} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// setPrimaryAccept says what new connections to the primary meet.
func (st *stage) setPrimaryAccept(mode pgtest.AcceptMode) error {
	return forEach(st.lanes, func(l *lane) error { return l.first.SetAccept(mode) })
}
