package piggyback

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

var errNoLock = errors.New("no lock")

// locking makes locks travel with the BEGIN of a user, and returns what is told of them.
func locking(u *user, first bool) (taken *[]time.Duration, refused *[]string) {
	taken, refused = new([]time.Duration), new([]string)
	locks := &Locks{
		Within: encode(statement(sqlWithin)...),
		Taken:  func(waited time.Duration) { *taken = append(*taken, waited) },
		Refused: func(msg []byte) error {
			var e pgproto3.ErrorResponse
			require.NoError(u.t, e.Decode(msg[headerLen:]))
			*refused = append(*refused, e.Message)
			return errNoLock
		},
	}
	if first {
		locks.First = encode(statement(sqlLock)...)
	}
	u.conn.Begin(beginMsgs, false)
	u.conn.Lock(locks)
	return taken, refused
}

func TestLocksTravelWithEveryKindOfFlightAndTheirAnswersAreNotSeen(t *testing.T) {
	for _, k := range kinds {
		for _, first := range []bool{true, false} {
			for _, late := range []bool{true, false} {
				for _, size := range []int{1, 3, 8192} {
					t.Run(fmt.Sprint(k.name, first, late, size), func(t *testing.T) {
						s := newServer()
						s.async, s.late, s.locked = between(2), late && first, !first
						u := newUser(t, s)
						u.size = func() int { return size }
						taken, _ := locking(u, first)
						require.Empty(t, *taken)
						u.send(k.flight...)
						require.Equal(t, 1, s.writes, "one segment")
						for _, f := range k.then {
							u.send(f...)
						}
						u.await(1)
						require.Equal(t, k.status, u.conn.Status(u.status))
						u.sawAll(s)
						ahead := []string{"I begin", "T lock within"}
						if first {
							ahead = []string{"I lock", "I begin", "T lock within"}
						}
						require.Equal(t, append(ahead, k.ran...), s.ran)
						require.False(t, u.conn.Refused())
						require.Len(t, *taken, 1)
						require.Equal(t, late && first, (*taken)[0] > 0)

						s.status = 'I' // whatever became of the transaction
						u.send(query(sqlRows))
						u.await(1)
						require.Equal(t, "I rows", s.ran[len(s.ran)-1], "nothing travels any more")
						require.ErrorIs(t, u.rest(), errNothing)
						u.sawAll(s)
					})
				}
			}
		}
	}
}

func TestWhereALockIsRefusedNothingBehindItIsRunAndNothingMoreCanBeRead(t *testing.T) {
	for _, k := range kinds {
		for name, refuse := range map[string]func(*server){
			"lock":            func(s *server) { s.noLock = "ERROR" },
			"lock, fatal":     func(s *server) { s.noLock = "FATAL" },
			"begin":           func(s *server) { s.refuse = "ERROR" },
			"begin, fatal":    func(s *server) { s.refuse = "FATAL" },
			"within":          func(s *server) { s.noWithin = true },
			"within, no lock": func(s *server) { s.noWithin = true },
		} {
			for _, size := range []int{1, 8192} {
				t.Run(fmt.Sprint(k.name, ": ", name, size), func(t *testing.T) {
					s := newServer()
					s.async = between(3)
					refuse(s)
					u := newUser(t, s)
					u.size = func() int { return size }
					taken, refused := locking(u, name != "within, no lock")
					u.send(k.flight...)
					for _, f := range k.then {
						_, _ = u.conn.Write(encode(f...)) // which may find out
					}
					err := u.rest()
					require.True(t, u.conn.Refused())
					require.Equal(t, byte('E'), u.conn.Status('I'))
					require.Empty(t, *taken)
					for _, ran := range s.ran {
						_, sql, _ := strings.Cut(ran, " ")
						require.True(t, ours(sql), ran)
					}
					if strings.HasSuffix(name, "fatal") {
						require.ErrorIs(t, err, io.EOF)
						require.Equal(t, 1, strings.Count(u.saw(), "E"), "as if the statement had met it")
						return
					}
					require.ErrorIs(t, err, errNoLock)
					require.Len(t, *refused, 1)
					require.NotContains(t, u.saw(), "E")
					require.NotContains(t, u.saw(), "Z")
					require.ErrorIs(t, u.rest(), errNoLock, "for good")
				})
			}
		}
	}
}

func TestLocksAreTakenBeforeAFlightThatTheServerWouldRunInPart(t *testing.T) {
	for _, refused := range []bool{true, false} {
		s := newServer()
		s.ahead = true
		if refused {
			s.noLock = "ERROR"
		}
		u := newUser(t, s)
		taken, _ := locking(u, true)
		flight := encode(append(executed(sqlRows), executed(sqlRows)...)...)
		_, err := u.conn.Write(flight)
		if refused {
			require.ErrorIs(t, err, errNoLock)
			require.Equal(t, []string{"I lock", "I begin", "T lock within"}, s.ran)
			continue
		}
		require.NoError(t, err)
		u.await(2)
		require.Len(t, *taken, 1)
		require.Equal(t, []string{"I lock", "I begin", "T lock within", "T rows", "T rows"}, s.ran)
		u.sawAll(s)
	}
}

// TestLocksAreTakenBeforeALargeFlightIsSent: a server that waits for a lock does not read on.
func TestLocksAreTakenBeforeALargeFlightIsSent(t *testing.T) {
	large := strings.Repeat("x", maxCopied)
	for _, flight := range [][]pgproto3.FrontendMessage{msgs(query(large)), executed(large)} {
		for _, refused := range []bool{true, false} {
			s := newServer()
			s.ahead = true
			if refused {
				s.noLock = "ERROR"
			}
			u := newUser(t, s)
			taken, _ := locking(u, true)
			n, err := u.conn.Write(encode(flight...))
			if refused {
				require.ErrorIs(t, err, errNoLock)
				require.Zero(t, n)
				require.Equal(t, 1, s.writes, "nothing of it")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, 2, s.writes)
			u.await(1)
			require.Len(t, *taken, 1)
			require.Equal(t, []string{"I lock", "I begin", "T lock within", "T " + large}, s.ran)
			u.sawAll(s)
		}
	}
}

func TestLocksThatWereNotSentCanBeForgotten(t *testing.T) {
	s := newServer()
	u := newUser(t, s)
	taken, _ := locking(u, true)
	u.conn.Reset()
	u.send(query(sqlRows))
	u.await(1)
	u.conn.Begin(beginMsgs, false)
	u.send(query(sqlRows))
	u.await(1)
	require.Equal(t, []string{"I rows", "I begin", "T rows"}, s.ran)
	require.Empty(t, *taken)
	u.sawAll(s)
}

func TestTheLocksTravelWithAQuestionBehindTheFlight(t *testing.T) {
	for _, flight := range [][]pgproto3.FrontendMessage{msgs(query(sqlRows)), executed(sqlRows)} {
		s := newServer()
		_, s.asked = flight[0].(*pgproto3.Query)
		u := newUser(t, s)
		locking(u, true)
		u.conn.Behind(questionMsgs)
		u.send(flight...)
		u.await(1)
		require.Equal(t, 1, s.writes)
		require.Equal(t, []string{"I lock", "I begin", "T lock within", "T rows", "T question"}, s.ran)
		answer, got := u.conn.Answer()
		require.Equal(t, Answered, answer)
		require.Equal(t, answered, got)
		u.sawAll(s)
	}
}
