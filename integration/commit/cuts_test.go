package commit_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/integration/leak"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// deadline is what every transaction has. Nothing may be unknown within it.
const deadline = 10 * time.Second

// reach says how far a COMMIT gets.
type reach uint8

const (
	never  reach = iota // the server does not get it
	always              // the server has run it
	maybe               // it is cut in the moment in which the server gets it
)

// cut is one way to lose the answer to a COMMIT. Each is met by times transactions of every way and check.
type cut struct {
	name   string
	reach  reach
	times  int
	match  pgtest.Match
	action pgtest.Action
	after  func(rule *pgtest.Rule, hurry context.CancelFunc) // the COMMIT was met
}

var cuts = []cut{
	{"FIN before the server got it", never, 34, pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), nil},
	{"RST before the server got it", never, 34, pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST), nil},
	{"a half of it was sent", never, 34, pgtest.Sending("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), nil},
	{"never delivered, the server's socket left open", never, 3, pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.FIN), nil},
	{
		"swallowed, both sockets left open, until the deadline", never, 2, pgtest.Sending("commit"), pgtest.BlackHoleBefore(),
		func(_ *pgtest.Rule, hurry context.CancelFunc) { hurry() },
	},
	{
		"delivered late", maybe, 5, pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.FIN),
		func(rule *pgtest.Rule, _ context.CancelFunc) { time.AfterFunc(50*time.Millisecond, rule.Release) },
	},
	{
		"delivered about when it is fenced", maybe, 3, pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.FIN),
		func(rule *pgtest.Rule, _ context.CancelFunc) { time.AfterFunc(260*time.Millisecond, rule.Release) },
	},
	{"FIN to both when the server got it", maybe, 10, pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Both, pgtest.FIN), nil},
	{"RST to both when the server got it", maybe, 10, pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Both, pgtest.RST), nil},
	{"FIN to the client when the server got it", always, 30, pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Client, pgtest.FIN), nil},
	{"RST to the client when the server got it", always, 30, pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Client, pgtest.RST), nil},
	{"the answer was dropped", always, 30, pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), nil},
	{"a half of the answer", always, 15, pgtest.Reply("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), nil},
	{
		"the answer was swallowed, both sockets left open, until the deadline", always, 3, pgtest.Sent("commit"), pgtest.BlackHoleAfter(),
		func(_ *pgtest.Rule, hurry context.CancelFunc) { hurry() },
	},
}

// scene is a server, behind a proxy, with a table of items.
type scene struct {
	t     *testing.T
	proxy *pgtest.Proxy
	dsn   string
	admin *pgx.Conn
}

// newScene makes a scene. The table has no unique constraint: what is applied twice must be seen, not prevented.
func newScene(t *testing.T) *scene {
	t.Helper()
	server := pgt.Shared(t)
	admin, err := pgx.Connect(t.Context(), server.DSN())
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	_, err = admin.Exec(t.Context(), "create table item (id text not null)")
	require.NoError(t, err)
	proxy := pgt.Proxy(t, server.Cluster.Addr())
	proxy.DropCancels(true) // of other connections than those of a COMMIT, which sends none
	return &scene{t: t, proxy: proxy, dsn: proxy.DSN("dbname=" + server.Name), admin: admin}
}

// items returns how often the item is there.
func (s *scene) items(id string) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), "select count(*) from item where id = $1", id).Scan(&n))
	return n
}

// tally counts what was told and what was there.
type tally struct{ before, after, either, applied, notApplied atomic.Int64 }

// TestNothingIsLostDuplicatedOrToldWrongWhereverCommitIsCut cuts every way's COMMITs in every place, with both checks. At
// least 1,000 are cut before the server has them, and at least 1,000 afterwards.
func TestNothingIsLostDuplicatedOrToldWrongWhereverCommitIsCut(t *testing.T) {
	pgt.Shared(t) // its cluster outlives the test
	leak.Check(t)
	var total tally
	t.Run("cuts", func(t *testing.T) {
		for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
			for _, w := range ways {
				t.Run(check.String()+", "+w.name, func(t *testing.T) {
					t.Parallel()
					s := newScene(t)
					for _, c := range cuts {
						s.cut(w, check, c, &total)
					}
				})
			}
		}
	})
	t.Logf("COMMITs cut: %d before the server had them, %d afterwards, %d in that moment; applied %d, not applied %d, unknown 0",
		total.before.Load(), total.after.Load(), total.either.Load(), total.applied.Load(), total.notApplied.Load())
	if !t.Failed() {
		require.GreaterOrEqual(t, total.before.Load(), int64(1000))
		require.GreaterOrEqual(t, total.after.Load(), int64(1000))
	}
}

// cut loses the COMMITs of as many transactions as c says.
func (s *scene) cut(w way, check retrypg.CommitCheck, c cut, total *tally) {
	s.t.Helper()
	var checks []retrypg.CommitCheckInfo
	run := w.open(s.t, withKey(s.dsn, "retry_commit_check", check.String()), retrypg.Hooks{
		CommitChecked: func(_ context.Context, info retrypg.CommitCheckInfo) { checks = append(checks, info) },
		CommitUnknown: func(_ context.Context, e *retrypg.CommitUnknownError) { s.t.Errorf("%s: %v", c.name, e) },
	})
	for i := range c.times {
		id := fmt.Sprintf("%s %d", c.name, i)
		checks = nil
		ctx, hurry := context.WithTimeout(s.t.Context(), deadline)
		rule := s.proxy.OnMessage(c.match, c.action)
		met := make(chan struct{})
		go func() {
			defer close(met)
			if rule.Wait(ctx) == nil && c.after != nil {
				c.after(rule, hurry)
			}
		}()
		err := run(ctx, id)
		ended := ctx.Err() != nil
		<-met
		hurry()
		rule.Release()
		n := s.items(id)
		s.tidy()
		switch {
		case err == nil:
			require.Equal(s.t, 1, n, "%s: told ok", id)
			total.applied.Add(1)
		case w.reruns && !ended:
			require.NoError(s.t, err, id)
		default:
			require.Equal(s.t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome, "%s: %v", id, err)
			require.NotErrorIs(s.t, err, retrypg.ErrCommitUnknown)
			require.Zero(s.t, n, "%s: told not applied", id)
			total.notApplied.Add(1)
		}
		switch c.reach {
		case never:
			total.before.Add(1)
			if c.after == nil {
				require.Equal(s.t, w.reruns, err == nil, id)
			} else { // its context has ended: there is no time to run it again
				require.ErrorIs(s.t, err, context.Canceled, id)
			}
		case always:
			total.after.Add(1)
			require.NoError(s.t, err, id)
		case maybe:
			total.either.Add(1)
		}
		require.Len(s.t, checks, 1, id)
		require.Positive(s.t, checks[0].Asked, id)
		var unknown *retrypg.CommitUnknownError
		require.False(s.t, errors.As(err, &unknown), id)
	}
}

// tidy ends what cuts have left open on the server's side, before there are too many.
func (s *scene) tidy() {
	if len(s.proxy.Conns()) > 5 {
		s.proxy.CutAll(pgtest.Both, pgtest.FIN)
	}
}

func withKey(dsn, key, value string) string { return dsn + "&" + key + "=" + value }
