package tx_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// often returns a match that takes about one in n of what base matches.
func often(n int, base pgtest.Match) pgtest.Match {
	return func(m pgtest.Message) bool { return base(m) && rand.IntN(n) == 0 }
}

// TestWhatIsToldIsTrueWhileConnectionsAreCutAtRandom cuts connections at and around COMMIT while several workers move
// money over one proxy, until a number of transfers has been asked for.
func TestWhatIsToldIsTrueWhileConnectionsAreCutAtRandom(t *testing.T) {
	const workers, transfers = 4, 40
	some(t, pooled, func(t *testing.T, s *stage) {
		b := newBank(6)
		b.open(t, s.admin)
		proxy, dsn := s.proxied()
		var checked atomic.Int64
		db := s.openDSN(dsn+"&deadlock_timeout=50ms", workers, retrypg.WithHooks(retrypg.Hooks{
			CommitChecked: func(context.Context, retrypg.CommitCheckInfo) { checked.Add(1) },
		}))
		for name, loss := range losses {
			t.Logf("one in 30: %s", name)
			proxy.OnMessages(1000, often(30, loss.match), loss.action)
		}
		fatal := &pgproto3.ErrorResponse{
			Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01", Message: "terminating", Routine: "ProcessInterrupts",
		}
		for _, action := range []pgtest.Action{
			pgtest.CutBefore(pgtest.Both, pgtest.FIN), pgtest.CutAfter(pgtest.Both, pgtest.RST),
			pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(fatal),
		} {
			proxy.OnMessages(1000, often(60, pgtest.Sent("update")), action)
			proxy.OnMessages(1000, often(60, pgtest.Sent("begin")), action)
			proxy.OnMessages(1000, often(60, pgtest.Sent("rollback")), action)
		}
		proxy.OnMessages(1000, often(60, pgtest.Sent("commit")), pgtest.CutBefore(pgtest.Both, pgtest.FIN).Telling(fatal))
		proxy.OnMessages(1000, often(30, pgtest.ReplyReady("commit")), pgtest.CutBefore(pgtest.Both, pgtest.FIN))

		ctx := s.context()
		var wg sync.WaitGroup
		for worker := range workers {
			wg.Go(func() {
				for i := range transfers {
					_ = b.transfer(ctx, s.adapter, db, fmt.Sprintf("%d-%d", worker, i)) // the bank has noted the error
				}
			})
		}
		wg.Wait()
		require.NoError(t, ctx.Err(), "it took too long")
		s.quiet()
		unknown := b.audit(t, s.admin)
		const nothing = "no COMMIT was lost: the test has tested nothing"
		switch {
		case !settles(s.adapter):
			require.Positive(t, unknown, nothing)
		default:
			require.Zero(t, unknown)
			if s.ours {
				require.Positive(t, checked.Load(), nothing)
				t.Logf("%d lost COMMITs were settled", checked.Load())
			}
		}
	})
}
