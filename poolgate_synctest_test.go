package retrypg

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// configuredPool makes a pool of pgxpool, with ConfigurePool, whose server is s.
func configuredPool(t *testing.T, s *script.Server, opts ...Option) *pgxpool.Pool {
	t.Helper()
	t.Cleanup(s.Close)
	cfg, err := pgxpool.ParseConfig(scriptedDSN)
	require.NoError(t, err)
	require.NoError(t, ConfigurePool(cfg, append([]Option{onScript(s), WithCommitCheck(NoCheck)}, opts...)...))
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// TestAConfiguredPoolWaitsForTheNameOfItsServer: a container may be there before the name is.
func TestAConfiguredPoolWaitsForTheNameOfItsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const unknown = 2 * time.Second
		began := time.Now()
		var lookups atomic.Int32
		s := script.New()
		pool := configuredPool(t, s, WithConnConfig(func(cfg *pgx.ConnConfig) error {
			lookup := cfg.LookupFunc
			cfg.LookupFunc = func(ctx context.Context, name string) ([]string, error) {
				if lookups.Add(1); time.Since(began) < unknown {
					return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
				}
				return lookup(ctx, name)
			}
			return nil
		}))
		_, err := pool.Exec(t.Context(), "select 1")
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(began), unknown)
		require.LessOrEqual(t, time.Since(began), unknown+2*probeMaxDelay)
		require.LessOrEqual(t, int(lookups.Load()), int(unknown/probeMaxDelay*2)*2+10)
	})
}

// TestAConfiguredPoolDialsNothingAfterItHasWaitedInVain: what is left of its hosts has nothing to wait for.
func TestAConfiguredPoolDialsNothingAfterItHasWaitedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		starting, wrong := script.Fatal("57P03", "the database system is starting up"), script.Fatal("28P01", "password authentication failed")
		s := script.New(starting, starting, wrong)
		pool := configuredPool(t, s, WithConnConfig(func(cfg *pgx.ConnConfig) error {
			cfg.Fallbacks = append(cfg.Fallbacks, &pgconn.FallbackConfig{Host: "other.invalid", Port: 5432})
			return nil
		}))
		_, err := pool.Exec(t.Context(), "select 1")
		require.Equal(t, "28P01", SQLState(err))
		require.LessOrEqual(t, len(s.Attempts()), 4, "both hosts of the first round, and those that the wait has asked")
	})
}

// TestAConfiguredPoolThatPrefersAStandbyTakesAPrimaryAtTheSecondConnection: as pgx itself does.
func TestAConfiguredPoolThatPrefersAStandbyTakesAPrimaryAtTheSecondConnection(t *testing.T) {
	for recovery, connections := range map[string]int{"t": 1, "f": 2} {
		t.Run(recovery, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script.New(script.Accept(func(_ *script.Session, sql string) script.Result {
					if strings.Contains(sql, "pg_is_in_recovery") {
						return script.Text(recovery)
					}
					return script.Result{}
				}))
				pool := configuredPool(t, s, WithConnConfig(func(cfg *pgx.ConnConfig) error {
					cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPreferStandby
					return nil
				}))
				for range 2 {
					_, err := pool.Exec(t.Context(), "select 1")
					require.NoError(t, err)
				}
				require.Len(t, s.Attempts(), connections)
			})
		})
	}
}
