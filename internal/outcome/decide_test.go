package outcome

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

var began = Identity{System: "7", Timeline: 3, Epoch: Epoch{Started: "100", Replayed: "0/1", StatsReset: "50"}, PID: 42}

// answered are all identities that a server may answer with, by what differs from began.
func answered() map[string]Identity {
	all := map[string]Identity{"unknown": {}}
	for system, name := range map[string]string{"7": "", "8": "other system, "} {
		for timeline, tlName := range map[uint32]string{2: "older timeline, ", 3: "", 4: "newer timeline, "} {
			for epoch, epochName := range map[Epoch]string{
				began.Epoch: "same epoch",
				{Started: "100", Replayed: "0/1", StatsReset: "51"}: "same start and recovery",
				{Started: "200", Replayed: "", StatsReset: "50"}:    "same statistics",
				{Started: "100", Replayed: "0/9", StatsReset: "60"}: "crashed",
				{Started: "200", Replayed: "0/1"}:                   "restarted",
			} {
				for _, standby := range []bool{false, true} {
					id := Identity{System: system, Timeline: timeline, Epoch: epoch, Standby: standby}
					all[fmt.Sprintf("%s%s%s, standby %v", name, tlName, epochName, standby)] = id
				}
			}
		}
	}
	return all
}

var statuses = []status{statusNone, statusInProgress, statusCommitted, statusAborted, statusFuture, statusForgotten, statusExpired, statusElsewhere}

// TestCommittedIsBelievedOnlyOfTheSameClusterTimelineAndEpoch looks at everything that a server can answer about an id.
func TestCommittedIsBelievedOnlyOfTheSameClusterTimelineAndEpoch(t *testing.T) {
	q := &Question{Server: began, XID: 727}
	seen := map[Verdict]int{}
	for name, server := range answered() {
		for _, status := range statuses {
			a, next := q.judge(reply{server: server, status: status})
			seen[a.Verdict]++
			context := fmt.Sprintf("%s, status %d", name, status)
			same := server.System == "7" && server.Timeline == 3 && began.Epoch.Same(server.Epoch)
			switch a.Verdict {
			case Committed:
				require.Equal(t, statusCommitted, status, context)
				require.True(t, same && !server.Standby, context)
			case NotApplied:
				require.Contains(t, []uint8{uint8(statusAborted), uint8(statusFuture)}, uint8(status), context)
				require.False(t, server.Standby, context)
				if server.Known() {
					require.Equal(t, "7", server.System, context)
					require.GreaterOrEqual(t, server.Timeline, uint32(3), context)
				}
				if status == statusFuture {
					require.False(t, same, "%s: an id cannot be in the future of the server that has handed it out", context)
				}
			case Unknown:
				require.NotEmpty(t, a.Reason, context)
			}
			if next != decided {
				require.Equal(t, Unknown, a.Verdict, context)
				require.False(t, a.Over, context)
			}
			if status == statusInProgress {
				require.NotEqual(t, NotApplied, a.Verdict, context)
			}
		}
	}
	require.Len(t, seen, 3, "every verdict was given")
}

func TestRulesForAnId(t *testing.T) {
	crashed := began
	crashed.Epoch = Epoch{Started: "100", Replayed: "0/9", StatsReset: "60"}
	promoted := began
	promoted.Timeline = 4
	former := began
	former.Timeline = 2
	standby := began
	standby.Standby = true
	q := &Question{Server: began, XID: 727}
	for _, tc := range []struct {
		name   string
		server Identity
		status status
		want   Verdict
		next   next
	}{
		{"committed", began, statusCommitted, Committed, decided},
		{"aborted", began, statusAborted, NotApplied, decided},
		{"in progress", began, statusInProgress, Unknown, askAgain},
		{"too long ago", began, statusForgotten, Unknown, decided},
		{"in the future of itself", began, statusFuture, Unknown, decided},
		{"committed, after a crash", crashed, statusCommitted, Unknown, decided},
		{"aborted, after a crash", crashed, statusAborted, NotApplied, decided},
		{"in the future, after a crash", crashed, statusFuture, NotApplied, decided},
		{"in progress, after a crash", crashed, statusInProgress, Unknown, askAgain},
		{"committed, after a failover", promoted, statusCommitted, Unknown, decided},
		{"in the future, after a failover", promoted, statusFuture, NotApplied, decided},
		{"aborted, by a former primary", former, statusAborted, Unknown, askOthers},
		{"a hot standby", standby, statusNone, Unknown, askOthers},
	} {
		a, next := q.judge(reply{server: tc.server, status: tc.status})
		require.Equal(t, tc.want, a.Verdict, tc.name)
		require.Equal(t, tc.next, next, tc.name)
	}
}

func TestATokenIsBelievedByAnyPrimaryOfTheClusterThatIsNotAFormerOne(t *testing.T) {
	for _, server := range []Identity{began, {}} { // of a server without identity nothing is compared
		q := &Question{Server: server, Token: &Token{}}
		for name, now := range answered() {
			for _, status := range statuses {
				a, next := q.judge(reply{server: now, status: status, byToken: true})
				context := fmt.Sprintf("%s, status %d", name, status)
				foreign := server.Known() && now.Known() && (now.System != "7" || now.Timeline < 3)
				switch {
				case now.Standby, foreign:
					require.Equal(t, Unknown, a.Verdict, context)
				case status == statusCommitted:
					require.Equal(t, Committed, a.Verdict, context)
				case status == statusAborted:
					require.Equal(t, NotApplied, a.Verdict, context)
				case status == statusInProgress:
					require.Equal(t, askAgain, next, context)
				default:
					require.Equal(t, Unknown, a.Verdict, context)
					require.Equal(t, status != statusElsewhere, a.Over, context)
				}
			}
		}
	}
}

func TestAnEpochIsTheSameOnlyIfAWitnessSaysSo(t *testing.T) {
	for a := range map[Epoch]bool{
		{}: true, {Started: "1"}: true, {StatsReset: "1"}: true, {Started: "1", Replayed: "0/1"}: true,
		{Started: "1", Replayed: "0/1", StatsReset: "2"}: true,
	} {
		require.Equal(t, a != Epoch{}, a.Same(a), "%+v", a)
		require.False(t, a.Same(Epoch{}))
		require.False(t, Epoch{}.Same(a))
		require.Equal(t, a, ParseEpoch(a.String()))
		for b := range map[Epoch]bool{{Started: "9", Replayed: "0/1"}: true, {Started: "1", Replayed: "0/9", StatsReset: "9"}: true} {
			require.Equal(t, a.Same(b), b.Same(a))
			require.False(t, a.Same(b))
		}
	}
	require.Equal(t, Epoch{}, ParseEpoch("no epoch"))
}

func TestOnlyTheProcessOfTheSameServerIsFenced(t *testing.T) {
	q := &Question{Server: began, XID: 727}
	for name, server := range answered() {
		same := server.System == "7" && server.Timeline == 3 && began.Epoch.Same(server.Epoch)
		require.Equal(t, same, q.same(reply{server: server}), name)
	}
	require.False(t, (&Question{Server: began}).same(reply{server: began}), "without an id")
	require.False(t, (&Question{XID: 727}).same(reply{server: began}), "without an identity")
}

func TestVerdictsHaveTheWordsOfTelemetry(t *testing.T) {
	require.Equal(t, []string{"unknown", "committed", "not_applied"}, []string{Unknown.String(), Committed.String(), NotApplied.String()})
}
