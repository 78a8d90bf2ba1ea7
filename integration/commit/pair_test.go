package commit_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

const itemTable = "create table item (id text not null)"

// pair is a primary and its standby, whose replication goes through a proxy of its own, and a proxy that clients connect
// through, to the primary at first.
type pair struct {
	t                *testing.T
	primary, standby *pgtest.Cluster
	replication      *pgtest.Proxy
	proxy            *pgtest.Proxy
}

// newPair makes a pair with a table of items. With synchronous replication every COMMIT waits for the standby.
func newPair(t *testing.T, synchronous bool) *pair {
	t.Helper()
	leak.Check(t)
	p := &pair{t: t}
	p.primary = pgt.New(t, pgtest.Options{Name: "first", Fsync: true})
	p.replication = pgt.Proxy(t, p.primary.Addr())
	ctx := t.Context()
	require.NoError(t, p.primary.Exec(ctx, itemTable))
	p.standby = pgt.Standby(t, p.primary, pgtest.Options{Name: "second", ReplicateFrom: p.replication.Addr()})
	require.NoError(t, p.primary.WaitStreaming(ctx, "second"))
	if synchronous {
		require.NoError(t, p.primary.Synchronize(ctx, "second"))
	}
	p.proxy = pgt.Proxy(t, p.primary.Addr())
	return p
}

// cutOff ends the replication: what is committed from now on never reaches the standby.
func (p *pair) cutOff() {
	p.t.Helper()
	require.NoError(p.t, p.standby.WaitReplayed(p.t.Context(), p.primary))
	require.NoError(p.t, p.replication.SetAccept(pgtest.AcceptRefuse))
	p.replication.CutAll(pgtest.Both, pgtest.FIN)
}

// promote makes the standby the primary, which clients then reach.
func (p *pair) promote() {
	p.t.Helper()
	ctx := p.t.Context()
	require.NoError(p.t, p.standby.Exec(ctx, "alter system reset synchronous_standby_names"))
	require.NoError(p.t, p.standby.Promote(ctx))
	p.proxy.SetUpstream(p.standby.Addr())
}

// itemA returns how often the item "a" is there.
func itemA(t *testing.T, c *pgtest.Cluster) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.DSN())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from item where id = 'a'").Scan(&n))
	return n
}
