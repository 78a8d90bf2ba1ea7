package commit_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// TestPoolOfPgxItselfIsAskedOverConnectionsThatAreMadeAsItsOwn: its hooks know the password of the moment, and set what a
// connection needs.
func TestPoolOfPgxItselfIsAskedOverConnectionsThatAreMadeAsItsOwn(t *testing.T) {
	s := newScene(t)
	leak.Check(t)
	ctx := t.Context()
	cfg, err := pgxpool.ParseConfig(withKey(s.dsn, "user", "expired"))
	require.NoError(t, err)
	cfg.MaxConns = 1
	var before, after atomic.Int32
	cfg.BeforeConnect = func(_ context.Context, cfg *pgx.ConnConfig) error {
		before.Add(1)
		cfg.User = "postgres"
		return nil
	}
	cfg.AfterConnect = func(context.Context, *pgx.Conn) error { after.Add(1); return nil }
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	require.NoError(t, err)
	defer pool.Close()
	run := withPgxTx(pool)
	require.NoError(t, run(ctx, "whole"))
	require.Equal(t, []int32{1, 1}, []int32{before.Load(), after.Load()})

	s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.NoError(t, run(ctx, "answer lost"))
	require.Equal(t, 1, s.items("answer lost"))
	require.Equal(t, []int32{2, 2}, []int32{before.Load(), after.Load()}, "the one that asks")

	s.proxy.OnMessage(pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	require.NoError(t, run(ctx, "never sent"))
	require.Equal(t, 1, s.items("never sent"))
	require.Equal(t, []int32{5, 5}, []int32{before.Load(), after.Load()}, "two of the pool's own, and one that asks")
}
