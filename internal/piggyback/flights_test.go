package piggyback

import (
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// messages joins flights.
func messages(parts ...[]pgproto3.FrontendMessage) (msgs []pgproto3.FrontendMessage) {
	for _, p := range parts {
		msgs = append(msgs, p...)
	}
	return msgs
}

func msgs(m ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return m }

// kinds are the flights that BEGIN travels with, each of which is one round trip.
var kinds = []struct {
	name   string
	flight []pgproto3.FrontendMessage
	then   [][]pgproto3.FrontendMessage // what belongs to it, and is written before it is answered to the end
	saw    string                       // what the user sees
	ran    []string                     // where BEGIN is accepted
	status byte                         // at the end
}{
	{"a Query", msgs(query(sqlRows)), nil, "TDDDCZ", []string{"T rows"}, 'T'},
	{"a Query of several statements", msgs(query("rows;rows")), nil, "TDDDCTDDDCZ", []string{"T rows", "T rows"}, 'T'},
	{"a Query that is empty", msgs(query(sqlEmpty)), nil, "IZ", []string{"T "}, 'T'},
	{"a Query that fails", msgs(query(sqlFail)), nil, "EZ", []string{"T fail"}, 'E'},
	{"a Query that ends the transaction", msgs(query("rows;commit")), nil, "TDDDCCZ", []string{"T rows", "T commit"}, 'I'},
	{"large rows", msgs(query(sqlLarge)), nil, "TDDDCZ", []string{"T large"}, 'T'},
	{"a statement that is prepared", prepared(), nil, "1tTZ", nil, 'T'},
	{"a statement that is executed", executed(sqlRows), nil, "12DDDCZ", []string{"T rows"}, 'T'},
	{"a statement that is executed and fails", executed(sqlFail), nil, "12EZ", []string{"T fail"}, 'E'},
	{"several executions", executed(sqlRows, sqlEmpty, sqlRows), nil, "12DDDC12I12DDDCZ", []string{"T rows", "T ", "T rows"}, 'T'},
	{"several executions, of which one fails", executed(sqlRows, sqlFail, sqlRows), nil, "12DDDC12EZ", []string{"T rows", "T fail"}, 'E'},
	{"a statement that is closed before another one", messages(msgs(closed), executed(sqlRows)), nil, "312DDDCZ", []string{"T rows"}, 'T'},
	{"a statement that is closed without a Sync", msgs(closed), [][]pgproto3.FrontendMessage{executed(sqlRows)}, "312DDDCZ", []string{"T rows"}, 'T'},
	{"a statement that is only parsed", msgs(&pgproto3.Parse{Name: "s", Query: sqlRows}, &pgproto3.Sync{}), nil, "1Z", nil, 'T'},
	{"COPY out", msgs(query(sqlCopyOut)), nil, "HdddcCZ", []string{"T copy out"}, 'T'},
	{
		"COPY in", msgs(query(sqlCopyIn)),
		[][]pgproto3.FrontendMessage{msgs(&pgproto3.CopyData{Data: []byte("a")}), msgs(&pgproto3.CopyData{Data: []byte("b")}), msgs(&pgproto3.CopyDone{})},
		"GCZ",
		[]string{"T copy in"},
		'T',
	},
	{
		"COPY in that the user gives up", msgs(query(sqlCopyIn)),
		[][]pgproto3.FrontendMessage{msgs(&pgproto3.CopyData{Data: []byte("a")}, &pgproto3.CopyFail{})},
		"GEZ",
		[]string{"T copy in"},
		'E',
	},
	{
		"a pipeline that is flushed", messages(statement(sqlRows), msgs(&pgproto3.Flush{})),
		[][]pgproto3.FrontendMessage{messages(statement(sqlRows), msgs(&pgproto3.Flush{})), msgs(&pgproto3.Sync{})},
		"12DDDC12DDDCZ",
		[]string{"T rows", "T rows"},
		'T',
	},
	{
		"messages without a Sync", statement(sqlRows),
		[][]pgproto3.FrontendMessage{executed(sqlRows)},
		"12DDDC12DDDCZ",
		[]string{"T rows", "T rows"},
		'T',
	},
}

func TestBeginTravelsWithEveryKindOfFlightAndItsAnswerIsNotSeen(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := newServer()
			u := newUser(t, s)
			u.conn.Begin(beginMsgs, false)
			require.True(t, u.conn.Waits())
			u.send(k.flight...)
			require.False(t, u.conn.Waits())
			require.Equal(t, 1, s.writes, "one segment")
			for _, f := range k.then {
				u.send(f...)
			}
			u.await(1)
			require.Equal(t, k.saw, u.saw())
			require.Equal(t, k.status, u.conn.Status(u.status))
			u.sawAll(s)
			require.Equal(t, append([]string{"I begin"}, k.ran...), s.ran)
			require.False(t, u.conn.Refused())

			s.status = 'I' // whatever became of the transaction
			u.send(query(sqlRows))
			u.await(1)
			require.Equal(t, "I rows", s.ran[len(s.ran)-1], "nothing travels any more")
			require.ErrorIs(t, u.rest(), errNothing)
			u.sawAll(s)
			require.Equal(t, byte('I'), u.conn.Status(u.status))
		})
	}
}

func TestWhereBeginIsRefusedNothingBehindItIsRun(t *testing.T) {
	for _, severity := range []string{"ERROR", "FATAL"} {
		for _, k := range kinds {
			t.Run(severity+": "+k.name, func(t *testing.T) {
				s := newServer()
				s.refuse = severity
				u := newUser(t, s)
				u.conn.Begin(beginMsgs, false)
				u.send(k.flight...)
				for _, f := range k.then {
					u.send(f...)
				}
				if severity == "FATAL" {
					require.ErrorIs(t, u.rest(), io.EOF)
					require.Equal(t, "E", u.saw())
				} else {
					u.await(1)
					require.ErrorIs(t, u.rest(), errNothing)
					require.Equal(t, "EZ", u.saw(), "one error, and one ReadyForQuery")
				}
				require.Equal(t, []string{"I begin"}, s.ran)
				require.True(t, u.conn.Refused())
				require.Equal(t, byte('E'), u.conn.Status('I'))
				if severity == "FATAL" {
					return
				}

				s.refuse = ""
				u.conn.Begin(beginMsgs, false) // the connection can be used on
				u.send(query(sqlRows))
				u.await(1)
				require.Equal(t, []string{"I begin", "I begin", "T rows"}, s.ran)
				require.ErrorIs(t, u.rest(), errNothing)
				u.sawAll(s)
				require.False(t, u.conn.Refused())
			})
		}
	}
}

var closed = &pgproto3.Close{ObjectType: 'S', Name: "s"}

// pgx's Deallocate reads no further than an error: the ReadyForQuery behind it would pass for the answer to the next statement.
func TestBeginDoesNotTravelWithAFlightThatOnlyClosesStatements(t *testing.T) {
	for _, flight := range [][]pgproto3.FrontendMessage{msgs(closed, &pgproto3.Sync{}), msgs(closed, closed, &pgproto3.Sync{}), msgs(&pgproto3.Sync{})} {
		s := newServer()
		u := newUser(t, s)
		u.conn.Begin(beginMsgs, false)
		u.send(flight...)
		u.await(1)
		require.Empty(t, s.ran)
		require.True(t, u.conn.Waits())
		require.Equal(t, byte('T'), u.conn.Status(u.status))
		u.send(executed(sqlRows)...)
		u.await(1)
		require.Equal(t, []string{"I begin", "T rows"}, s.ran)
		u.sawAll(s)
	}
}

func TestBeginIsNotSentWhileOtherAnswersAreDue(t *testing.T) {
	s := newServer()
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, false)
	u.send(closed, &pgproto3.Sync{})
	n, err := u.conn.Write(encode(executed(sqlRows)...))
	require.ErrorIs(t, err, errUnread)
	require.Zero(t, n)
	require.Empty(t, s.ran)
}

// irregular are flights of which a part would be run although BEGIN was refused, or more would be awaited than comes.
var irregular = []struct {
	name   string
	flight []pgproto3.FrontendMessage
	ready  int
	ran    []string
}{
	{"two Queries", msgs(query(sqlRows), query(sqlRows)), 2, []string{"T rows", "T rows"}},
	{"two Syncs", messages(executed(sqlRows), executed(sqlRows)), 2, []string{"T rows", "T rows"}},
	{"a Query behind a Sync", messages(executed(sqlRows), msgs(query(sqlRows))), 2, []string{"T rows", "T rows"}},
	{"a Sync behind a Query", messages(msgs(query(sqlRows)), executed(sqlRows)), 2, []string{"T rows", "T rows"}},
	{"a function that is called directly", msgs(&pgproto3.FunctionCall{}), 1, []string{"T function"}},
	{"a Query behind messages", messages(statement(sqlRows), msgs(query(sqlRows))), 1, []string{"T rows", "T rows"}},
	{"messages behind a Sync", messages(executed(sqlRows), statement(sqlRows), msgs(&pgproto3.Flush{})), 1, []string{"T rows", "T rows"}},
}

func TestAFlightOfSeveralWaitsForTheAnswerToBegin(t *testing.T) {
	for _, k := range irregular {
		t.Run(k.name, func(t *testing.T) {
			s := newServer()
			s.ahead = true
			u := newUser(t, s)
			u.conn.Begin(beginMsgs, false)
			u.conn.Behind(questionMsgs)
			u.send(k.flight...)
			u.await(k.ready)
			require.ErrorIs(t, u.rest(), errNothing)
			u.sawAll(s)
			require.Equal(t, append([]string{"I begin"}, k.ran...), s.ran)
			require.Equal(t, byte('T'), u.conn.Status(u.status))
		})
		t.Run(k.name+", refused", func(t *testing.T) {
			s := newServer()
			s.ahead, s.refuse = true, "ERROR"
			u := newUser(t, s)
			u.conn.Begin(beginMsgs, false)
			n, err := u.conn.Write(encode(k.flight...))
			require.ErrorIs(t, err, errRefused)
			require.Zero(t, n)
			require.True(t, u.conn.Refused())
			require.Equal(t, []string{"I begin"}, s.ran, "nothing is run outside of the transaction")
		})
	}
}

func TestAFlightBehindTheFirstOneWaitsForTheAnswerToBegin(t *testing.T) {
	for _, first := range [][]pgproto3.FrontendMessage{msgs(query(sqlRows)), executed(sqlRows), prepared()} {
		for _, second := range [][]pgproto3.FrontendMessage{msgs(query(sqlRows)), executed(sqlRows)} {
			s := newServer()
			s.notify(&pgproto3.NoticeResponse{Message: "something old"})
			u := newUser(t, s)
			u.conn.Begin(beginMsgs, false)
			u.send(first...)
			u.send(second...)
			u.await(2)
			require.ErrorIs(t, u.rest(), errNothing)
			u.sawAll(s)
			require.Equal(t, byte('T'), u.conn.Status(u.status))

			s = newServer()
			s.refuse = "ERROR"
			u = newUser(t, s)
			u.conn.Begin(beginMsgs, false)
			u.send(first...)
			n, err := u.conn.Write(encode(second...))
			require.ErrorIs(t, err, errRefused)
			require.Zero(t, n)
			require.Equal(t, []string{"I begin"}, s.ran, "nothing is run outside of the transaction")
		}
	}
}

func TestWhatEndsInASecondFlightIsOneWithTheFirst(t *testing.T) {
	s := newServer()
	s.refuse = "ERROR"
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, false)
	u.send(prepared()[:1]...)
	u.send(prepared()[1:]...)
	n, err := u.conn.Write(encode(executed(sqlRows)...))
	require.ErrorIs(t, err, errRefused)
	require.Zero(t, n)
	require.Equal(t, []string{"I begin"}, s.ran, "nothing is run outside of the transaction")
}

func TestAQueryBehindMessagesWithoutASyncWaitsForTheAnswerToBegin(t *testing.T) {
	for _, refuse := range []string{"", "ERROR"} {
		s := newServer()
		s.refuse = refuse
		u := newUser(t, s)
		u.conn.Begin(beginMsgs, false)
		u.send(statement(sqlRows)...)
		n, err := u.conn.Write(encode(query(sqlRows)))
		if refuse != "" {
			require.ErrorIs(t, err, errRefused)
			require.Zero(t, n)
			require.Equal(t, []string{"I begin"}, s.ran)
			continue
		}
		require.NoError(t, err)
		u.await(1)
		u.sawAll(s)
		require.Equal(t, []string{"I begin", "T rows", "T rows"}, s.ran)
	}
}

func TestTerminateTakesNothingWithIt(t *testing.T) {
	s := newServer()
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, false)
	u.send(&pgproto3.Terminate{})
	require.Empty(t, s.ran)
	require.Equal(t, byte('T'), u.conn.Status('I'), "what was true of the transaction stays so")
	require.ErrorIs(t, u.rest(), io.EOF)
	require.Empty(t, u.got)
}

func TestWhatWasNotSentCanBeForgotten(t *testing.T) {
	s := newServer()
	u := newUser(t, s)
	u.conn.Begin(beginMsgs, false)
	u.conn.Behind(questionMsgs)
	u.conn.Reset()
	require.False(t, u.conn.Waits())
	u.send(query(sqlRows))
	u.await(1)
	require.Equal(t, []string{"I rows"}, s.ran)
	u.sawAll(s)

	u.conn.Behind(questionMsgs)
	u.conn.Begin(beginMsgs, false) // is for another transaction than the question was
	u.send(executed(sqlRows)...)
	u.await(1)
	require.Equal(t, []string{"I rows", "I begin", "T rows"}, s.ran)

	u.conn.Behind(questionMsgs)
	u.send(executed(sqlRows)...)
	u.await(1)
	u.sawAll(s)
	answer, _ := u.conn.Answer()
	require.Equal(t, Answered, answer)
	u.conn.Reset()
	answer, _ = u.conn.Answer()
	require.Equal(t, NoAnswer, answer)
}
