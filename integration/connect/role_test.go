package connect_test

import (
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestTheRoleOfAServerIsJudgedAsByPgxInTheRoundTripThatAsksWhoItIs: pgx asks for the role alone, as a connection does whose commits
// are not checked.
func TestTheRoleOfAServerIsJudgedAsByPgxInTheRoundTripThatAsksWhoItIs(t *testing.T) {
	primary, standby := newPair(t, false)
	ctx := within(t)
	require.NoError(t, primary.Exec(ctx, "create role reader login"))
	require.NoError(t, primary.Exec(ctx, "alter role reader set default_transaction_read_only = on"))
	require.NoError(t, standby.WaitReplayed(ctx, primary))
	for server, cluster := range map[string]*pgtest.Cluster{"primary": primary, "standby": standby} {
		p := pgt.Proxy(t, cluster.Addr())
		var asked atomic.Int32
		p.OnMessages(1_000_000, func(m pgtest.Message) bool {
			if m.Type == 'Q' {
				asked.Add(1)
			}
			return false
		}, pgtest.Pause())
		for _, user := range []string{"postgres", "reader"} {
			for _, attrs := range []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"} {
				t.Run(server+"/"+user+"/"+attrs, func(t *testing.T) {
					dsn := p.DSN("target_session_attrs="+attrs, "user="+user)
					conn, err := pgx.Connect(ctx, dsn)
					if err == nil {
						require.NoError(t, conn.Close(ctx))
					}
					for check, questions := range map[string]int32{"xid": 1, "off": 1} {
						db := open(t, dsn+"&retry_commit_check="+check)
						db.SetMaxOpenConns(1)
						asked.Store(0)
						conn, ourErr := db.Conn(retrypg.NoRetry(ctx))
						if err != nil {
							require.EqualError(t, ourErr, err.Error())
							require.Equal(t, retrypg.Classify(err), retrypg.Classify(ourErr))
							continue
						}
						require.NoError(t, ourErr)
						switch {
						case attrs == "any" && check == "off":
							questions = 0
						case attrs == "prefer-standby":
							questions = asked.Load() // pgx's own check
						}
						require.Equal(t, questions, asked.Load(), check)
						require.NoError(t, conn.Close())
						require.NoError(t, db.Close())
					}
				})
			}
		}
	}
}
