package piggyback

import (
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// ending is a server in a transaction, and its user, with whose next flight COMMIT travels.
func ending(t *testing.T) (*server, *user) {
	s, u := inTransaction(t)
	u.conn.Behind(endMsgs)
	return s, u
}

func TestACommitThatTravelsBehindTellsHowTheTransactionEnded(t *testing.T) {
	for _, k := range []struct {
		name   string
		flight []pgproto3.FrontendMessage
		saw    string
		end    End
		ready  byte
	}{
		{"a Query", msgs(query(sqlRows)), "TDDDCZ", Committed, 'I'},
		{"a Query that fails", msgs(query(sqlFail)), "EZ", RolledBack, 'I'},
		{"an execution", executed(sqlRows), "12DDDCZ", Committed, 'I'},
		{"an execution that fails", executed(sqlFail), "12EZ", NoEnd, 'E'},
		{"large rows", executed(sqlLarge), "12DDDCZ", Committed, 'I'},
	} {
		for _, begins := range []bool{false, true} {
			for _, piece := range []int{0, 1} {
				t.Run(k.name, func(t *testing.T) {
					s, u := ending(t)
					if begins {
						s.status, u.status = 'I', 'I'
						u.conn.Begin(beginMsgs, false)
						u.conn.Behind(endMsgs)
					}
					if piece > 0 {
						s.piece = func(n int) int { return min(n, piece) }
					}
					_, s.asked = k.flight[0].(*pgproto3.Query)
					u.send(k.flight...)
					require.True(t, u.conn.Sent())
					u.await(1)
					require.Equal(t, k.saw, u.saw())
					require.Equal(t, k.end, u.conn.End())
					require.Equal(t, k.ready, u.status)
					require.Equal(t, k.ready, u.conn.Status(u.status))
					u.sawAll(s)
					u.conn.Behind(nil)
					require.Equal(t, NoEnd, u.conn.End())
					require.False(t, u.conn.Sent())
				})
			}
		}
	}
}

// TestAFlightThatExecutesNothingDoesNotTakeACommit: the next one does, unless it is taken back.
func TestAFlightThatExecutesNothingDoesNotTakeACommit(t *testing.T) {
	for _, back := range []bool{false, true} {
		s, u := ending(t)
		u.send(prepared()...)
		u.await(1)
		require.False(t, u.conn.Sent())
		if back {
			u.conn.Behind(nil)
		}
		u.send(executed(sqlRows)...)
		u.await(1)
		require.Equal(t, !back, u.conn.Sent())
		require.Equal(t, map[bool]End{true: NoEnd, false: Committed}[back], u.conn.End())
		u.sawAll(s)
	}
}

// TestACommitBehindATransactionThatHadEndedTellsNothing: its tag is about none.
func TestACommitBehindATransactionThatHadEndedTellsNothing(t *testing.T) {
	s, u := ending(t)
	s.asked = true
	u.send(query(sqlCommit))
	u.await(1)
	require.True(t, u.conn.Sent())
	require.Equal(t, NoEnd, u.conn.End())
}

func TestTheTagHoldsWhateverFollowsIt(t *testing.T) {
	for _, flight := range [][]pgproto3.FrontendMessage{msgs(query(sqlRows)), executed(sqlRows)} {
		s, u := ending(t)
		_, s.asked = flight[0].(*pgproto3.Query)
		u.send(flight...)
		s.sent = s.sent[:len(s.sent)-readyLen] // all but ReadyForQuery
		s.ended = true
		require.ErrorIs(t, u.rest(), io.EOF)
		require.Equal(t, Committed, u.conn.End())
	}
	for cut := 1; cut <= len(tagCommit); cut++ { // a part of it is none
		s, u := ending(t)
		u.send(executed(sqlRows)...)
		s.sent = s.sent[:len(s.sent)-readyLen-cut]
		s.ended = true
		require.Error(t, u.rest())
		require.Equal(t, NoEnd, u.conn.End())
	}
}

func TestARefusedBeginLeavesNothingToCommit(t *testing.T) {
	for _, flight := range [][]pgproto3.FrontendMessage{msgs(query(sqlRows)), executed(sqlRows)} {
		s := newServer()
		s.refuse = "ERROR"
		u := newUser(t, s)
		u.conn.Begin(beginMsgs, false)
		u.conn.Behind(endMsgs)
		u.send(flight...)
		u.await(1)
		require.True(t, u.conn.Refused())
		require.Equal(t, NoEnd, u.conn.End())
		require.Equal(t, []string{"I begin"}, s.ran)
	}
}
