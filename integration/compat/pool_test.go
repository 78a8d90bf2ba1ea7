package compat_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// pools are the three ways to a *pgxpool.Pool: pgxpool's own, and ours.
var pools = []struct {
	name string
	open func(*testing.T, *stage) *pgxpool.Pool
}{
	{"pgxpool", func(t *testing.T, s *stage) *pgxpool.Pool {
		pool, err := pgxpool.New(s.ctx, s.dsn)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		return pool
	}},
	{"NewPool", func(t *testing.T, s *stage) *pgxpool.Pool {
		pool, err := retrypg.NewPool(s.ctx, s.dsn)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		return pool.Pool
	}},
	{"ConfigurePool", func(t *testing.T, s *stage) *pgxpool.Pool {
		cfg, err := pgxpool.ParseConfig(s.dsn)
		require.NoError(t, err)
		require.NoError(t, retrypg.ConfigurePool(cfg))
		pool, err := pgxpool.NewWithConfig(s.ctx, cfg)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		return pool
	}},
}

// sameOverPools is sameOverBoth for what uses a *pgxpool.Pool.
func sameOverPools(t *testing.T, modes []string, f func(*testing.T, *stage, *pgxpool.Pool)) {
	t.Helper()
	server := pgt.Shared(t)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			requireNoLeaks(t)
			dsn := server.DSN("default_query_exec_mode=" + mode)
			var plain []string
			for _, p := range pools {
				seen := perform(t, "pgx", mode, dsn, p.name, func(t *testing.T, s *stage) { f(t, s, p.open(t, s)) })
				if plain == nil {
					require.NotEmpty(t, seen, "a program that notes nothing proves nothing")
					t.Log(strings.Join(seen, "\n"))
					plain = seen
				}
				require.Equal(t, strings.Join(plain, "\n"), strings.Join(seen, "\n"), p.name)
			}
		})
	}
}
