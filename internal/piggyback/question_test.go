package piggyback

import (
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// inTransaction is a user of a server in a transaction.
func inTransaction(t *testing.T) (*server, *user) {
	s := newServer()
	s.status = 'T'
	u := newUser(t, s)
	u.status = 'T'
	return s, u
}

func TestTheQuestionTravelsBehindAFlightThatExecutesSomething(t *testing.T) {
	for _, k := range []struct {
		name   string
		flight []pgproto3.FrontendMessage
		saw    string
	}{
		{"a Query", msgs(query(sqlRows)), "TDDDCZ"},
		{"a Query of several statements", msgs(query("rows;rows")), "TDDDCTDDDCZ"},
		{"a Query that is empty", msgs(query(sqlEmpty)), "IZ"},
		{"large rows of a Query", msgs(query(sqlLarge)), "TDDDCZ"},
		{"a statement that is executed", executed(sqlRows), "12DDDCZ"},
		{"an empty statement that is executed", executed(sqlEmpty), "12IZ"},
		{"several executions", executed(sqlRows, sqlEmpty, sqlCopyOut, sqlLarge), "12DDDC12I12HdddcC12DDDCZ"},
	} {
		for _, begins := range []bool{false, true} {
			t.Run(k.name, func(t *testing.T) {
				s, u := inTransaction(t)
				if begins {
					s.status, u.status = 'I', 'I'
					u.conn.Begin(beginMsgs, false)
				}
				u.conn.Behind(questionMsgs)
				_, s.asked = k.flight[0].(*pgproto3.Query)
				u.send(k.flight...)
				require.Equal(t, 1, s.writes, "one segment")
				u.await(1)
				require.Equal(t, k.saw, u.saw())
				answer, values := u.conn.Answer()
				require.Equal(t, Answered, answer)
				require.Equal(t, answered, values)
				require.Equal(t, "T question", s.ran[len(s.ran)-1])
				require.Equal(t, byte('T'), u.conn.Status(u.status))

				s.asked = false
				u.send(query(sqlRows))
				u.await(1)
				require.Equal(t, "T rows", s.ran[len(s.ran)-1], "it travels once")
				require.ErrorIs(t, u.rest(), errNothing)
				u.sawAll(s)
				require.Nil(t, u.conn.buf, "the buffer is given back")
				_, values = u.conn.Answer()
				require.Equal(t, answered, values, "until the next question")
			})
		}
	}
}

func TestTheQuestionIsNotAskedWhereItsAnswerCouldNotBeTold(t *testing.T) {
	cursor := executed(sqlRows)
	cursor[2] = &pgproto3.Execute{MaxRows: 2}
	for name, flight := range map[string][]pgproto3.FrontendMessage{
		"a flight without Sync":              statement(sqlRows),
		"a flight that is flushed":           messages(statement(sqlRows), msgs(&pgproto3.Flush{})),
		"two Syncs":                          messages(executed(sqlRows), executed(sqlRows)),
		"two Queries":                        msgs(query(sqlRows), query(sqlRows)),
		"a Query behind a Sync":              messages(executed(sqlRows), msgs(query(sqlRows))),
		"a portal that can be read on":       cursor,
		"a function that is called directly": {&pgproto3.FunctionCall{Function: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			_, u := inTransaction(t)
			u.conn.Behind(questionMsgs)
			p := encode(flight...)
			w := &recorder{}
			u.conn.w = w
			_, err := u.conn.Write(p)
			require.NoError(t, err)
			require.Equal(t, p, w.got)
		})
	}
}

func TestTheQuestionWaitsForAFlightThatExecutesSomething(t *testing.T) {
	s, u := inTransaction(t)
	u.conn.Behind(questionMsgs)
	u.send(prepared()...)
	u.await(1)
	u.send(executed(sqlRows)...)
	u.await(1)
	require.Equal(t, "1tTZ12DDDCZ", u.saw())
	answer, _ := u.conn.Answer()
	require.Equal(t, Answered, answer)
	u.sawAll(s)
}

func TestTheQuestionDoesNotGetInFrontOfAnswersThatAreDue(t *testing.T) {
	for _, k := range []struct {
		begins   bool
		prepares int // flights that are sent first
		read     int // and of these, how many are answered and read
	}{{false, 1, 0}, {false, 2, 1}, {true, 1, 0}, {true, 2, 1}} {
		s, u := inTransaction(t)
		if k.begins {
			s.status = 'I'
			u.conn.Begin(beginMsgs, false)
		}
		u.conn.Behind(questionMsgs)
		for range k.prepares {
			u.send(prepared()...)
		}
		u.size = func() int { return 1 } // and nothing beyond
		u.await(k.read)
		u.send(executed(sqlRows)...)
		require.ErrorIs(t, u.rest(), errNothing)
		u.sawAll(s)
		answer, _ := u.conn.Answer()
		require.Equal(t, NoAnswer, answer)
	}
}

func TestTheQuestionTravelsOnceAllThatWasDueIsRead(t *testing.T) {
	for _, begins := range []bool{false, true} {
		s, u := inTransaction(t)
		if begins {
			s.status = 'I'
			u.conn.Begin(beginMsgs, false)
		}
		u.conn.Behind(questionMsgs)
		u.send(prepared()[:1]...)
		u.send(prepared()[1:]...) // with the Sync of both
		u.send(prepared()...)
		u.await(2)
		u.send(executed(sqlRows)...)
		u.await(1)
		u.sawAll(s)
		answer, _ := u.conn.Answer()
		require.Equal(t, Answered, answer)
	}
}

func TestTheQuestionOfAStatementThatFailsIsNotAnswered(t *testing.T) {
	for _, k := range []struct {
		name   string
		flight []pgproto3.FrontendMessage
		saw    string
		ready  byte
	}{
		{"a Query", msgs(query(sqlFail)), "EZ", 'E'},
		{"the second statement of a Query", msgs(query("rows;fail;rows")), "TDDDCEZ", 'E'},
		{"an execution", executed(sqlFail), "12EZ", 'E'},
		{"the second execution", executed(sqlRows, sqlFail, sqlRows), "12DDDC12EZ", 'E'},
	} {
		t.Run(k.name, func(t *testing.T) {
			s, u := inTransaction(t)
			u.conn.Behind(questionMsgs)
			_, s.asked = k.flight[0].(*pgproto3.Query)
			u.send(k.flight...)
			u.await(1)
			require.ErrorIs(t, u.rest(), errNothing)
			require.Equal(t, k.saw, u.saw(), "the error of the statement, and no other one")
			require.Equal(t, k.ready, u.status)
			u.sawAll(s)
			answer, values := u.conn.Answer()
			require.Equal(t, NoAnswer, answer)
			require.Nil(t, values)
		})
	}
}

func TestAQueryThatEndsTheTransactionHasNoAnswer(t *testing.T) {
	s, u := inTransaction(t)
	s.asked = true
	u.conn.Behind(questionMsgs)
	u.send(query(sqlCommit))
	u.await(1)
	require.ErrorIs(t, u.rest(), errNothing)
	require.Equal(t, "CZ", u.saw())
	require.Equal(t, []string{"T commit", "I question"}, s.ran, "which is for a transaction of its own")
	answer, _ := u.conn.Answer()
	require.Equal(t, NoAnswer, answer)
}

func TestAConnectionThatEndsInPlaceOfTheQuestionOfAnEndedTransactionIsSeenToEnd(t *testing.T) {
	for _, severity := range []string{"ERROR", "FATAL"} {
		s, u := inTransaction(t)
		s.asked, s.noAnswer = true, severity
		u.conn.Behind(questionMsgs)
		u.send(query(sqlCommit))
		if severity == "FATAL" {
			require.ErrorIs(t, u.rest(), io.EOF)
			require.Equal(t, "CE", u.saw())
		} else {
			require.ErrorIs(t, u.rest(), errNothing)
			require.Equal(t, "CZ", u.saw(), "the Query has not failed")
		}
		u.sawAll(s)
	}
}

func TestTheRefusalOfTheQuestionIsSeen(t *testing.T) {
	for _, k := range []struct {
		name   string
		flight []pgproto3.FrontendMessage
		saw    string
	}{
		{"a Query", msgs(query(sqlRows)), "TDDDCE"},
		{"an execution", executed(sqlRows), "12DDDCE"},
	} {
		for _, severity := range []string{"ERROR", "FATAL"} {
			t.Run(severity+": "+k.name, func(t *testing.T) {
				s, u := inTransaction(t)
				s.noAnswer = severity
				_, s.asked = k.flight[0].(*pgproto3.Query)
				u.conn.Behind(questionMsgs)
				u.send(k.flight...)
				if severity == "FATAL" {
					require.ErrorIs(t, u.rest(), io.EOF)
					require.Equal(t, k.saw, u.saw())
				} else {
					u.await(1)
					require.ErrorIs(t, u.rest(), errNothing)
					require.Equal(t, k.saw+"Z", u.saw())
					require.Equal(t, byte('E'), u.status)
				}
				answer, values := u.conn.Answer()
				require.Equal(t, Failed, answer)
				require.Nil(t, values)
				u.conn.Behind(questionMsgs)
				answer, _ = u.conn.Answer()
				require.Equal(t, NoAnswer, answer, "of the next question")
			})
		}
	}
}

func TestAConnectionThatIsLostBehindTheStatementHasNoAnswer(t *testing.T) {
	for _, flight := range [][]pgproto3.FrontendMessage{msgs(query(sqlFatal)), executed(sqlFatal)} {
		s, u := inTransaction(t)
		u.conn.Behind(questionMsgs)
		u.send(flight...)
		require.ErrorIs(t, u.rest(), io.EOF)
		u.sawAll(s)
		answer, _ := u.conn.Answer()
		require.Equal(t, NoAnswer, answer)
	}
}

// A COPY cannot be told from the type of its message: it is for the caller not to ask then.
func TestAQuestionIsAnErrorInACopyFromTheClient(t *testing.T) {
	s, u := inTransaction(t)
	s.asked = true
	u.conn.Behind(questionMsgs)
	u.send(query(sqlCopyIn))
	require.ErrorIs(t, u.rest(), errNothing)
	require.Contains(t, u.saw(), "GE")
}

func TestOnlyAFewNumbersAreKept(t *testing.T) {
	s, u := inTransaction(t)
	for _, size := range []int{maxRow - 6, maxRow - 5, maxRow - 6, 2 * bufferSize} {
		u.got, u.at = nil, 0
		u.conn.Behind(questionMsgs)
		u.send(executed(sqlRows)...)
		row, err := (&pgproto3.DataRow{Values: [][]byte{make([]byte, size)}}).Encode(nil)
		require.NoError(t, err)
		s.sent = nil
		for _, m := range []pgproto3.BackendMessage{&pgproto3.CommandComplete{}, &pgproto3.BindComplete{}} {
			s.queued, err = m.Encode(s.queued)
			require.NoError(t, err)
		}
		s.queued = append(s.queued, row...)
		s.ready(false)
		u.await(1)
		require.Equal(t, "CZ", u.saw())
		answer, values := u.conn.Answer()
		require.Equal(t, Answered, answer)
		if size == maxRow-6 {
			require.Len(t, values, 1)
		} else {
			require.Empty(t, values)
		}
		require.LessOrEqual(t, cap(u.conn.row), 2*maxRow)
	}
}

func TestARowThatIsNoneHasNoValues(t *testing.T) {
	for _, msg := range []string{
		"", "D", "D\x00\x00\x00\x04", "D\x00\x00\x00\x06\x00", "D\x00\x00\x00\x06\x00\x01", "D\x00\x00\x00\x0a\x00\x01\x00\x00\x00\x05",
		"D\x00\x00\x00\x0a\x00\x01\x7f\xff\xff\xff",
	} {
		require.Empty(t, values(nil, []byte(msg)), "%q", msg)
	}
}
