package piggyback

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// choices are what a run is made of: bytes, and zeros once they are used up.
type choices []byte

// below returns a number below n.
func (c *choices) below(n int) int {
	if len(*c) == 0 {
		return 0
	}
	b := int((*c)[0])
	*c = (*c)[1:]
	return b * n / 256
}

func (c *choices) yes(of int) bool { return c.below(of) > 0 }

// random returns choices.
func random(seed uint64, n int) choices {
	r := rand.New(rand.NewPCG(seed, 1))
	c := make(choices, n)
	for i := range c {
		c[i] = byte(r.Uint32())
	}
	return c
}

// asyncs are messages that belong to no flight, small ones and such as are larger than all buffers.
var asyncs = []pgproto3.BackendMessage{
	&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "there is something"},
	&pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"},
	&pgproto3.NotificationResponse{PID: 0x5a000000, Channel: "Z", Payload: "D\x01\x01"},
	&pgproto3.NotificationResponse{PID: 1, Channel: "c", Payload: string(make([]byte, 7999))},
	&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: string(make([]byte, bufferSize+1))},
}

// flightsOf are what a user may send in a transaction. Whether the question may travel with them is for the user to say.
var flightsOf = []struct {
	flight []pgproto3.FrontendMessage
	then   []pgproto3.FrontendMessage
	asks   bool
}{
	{flight: msgs(query(sqlRows)), asks: true},
	{flight: executed(sqlRows), asks: true},
	{flight: prepared(), asks: true},
	{flight: executed(sqlRows, sqlEmpty, sqlFail, sqlRows), asks: true},
	{flight: msgs(query(sqlFail)), asks: true},
	{flight: msgs(query("rows;rows;rows")), asks: true},
	{flight: executed(sqlLarge, sqlRows), asks: true},
	{flight: msgs(query(sqlLarge)), asks: true},
	{flight: msgs(query(sqlCopyOut)), asks: true},
	{flight: msgs(query(sqlEmpty)), asks: true},
	{flight: msgs(query("rows;commit")), asks: true},
	{flight: executed(sqlCommit)},
	{flight: messages(msgs(closed), executed(sqlRows)), asks: true},
	{flight: statement(sqlRows), then: executed(sqlRows), asks: true},
	{flight: messages(statement(sqlRows), msgs(&pgproto3.Flush{})), then: msgs(&pgproto3.Sync{}), asks: true},
	{flight: msgs(query(sqlCopyIn)), then: msgs(&pgproto3.CopyData{Data: []byte("a row")}, &pgproto3.CopyDone{})},
	{flight: msgs(query(sqlFatal)), asks: true},
	{flight: executed(sqlFatal), asks: true},
	{flight: executed(sqlRows, sqlRows), asks: true},
}

// play plays some transactions of a user, as the choices say, and checks that the user has seen all that is for it, and nothing else.
func play(t testing.TB, c choices) {
	s := newServer()
	u := newUser(t, s)
	if c.yes(2) {
		s.async = func() pgproto3.BackendMessage {
			if c.below(8) < 7 {
				return nil
			}
			return asyncs[c.below(len(asyncs))]
		}
	}
	pieces := [...]int{1 << 30, 1, 2, 3, 5, 7, 64, bufferSize}
	if most := pieces[c.below(len(pieces))]; c.yes(2) {
		s.piece = func(n int) int { return min(n, 1+c.below(most)) }
	} else {
		s.piece = func(n int) int { return min(n, most) }
	}
	if most := pieces[c.below(len(pieces))]; most < 1<<30 {
		u.size = func() int { return most }
	}
	reading, late := false, c.yes(2)
	s.timeout = func() bool { return reading && late && c.below(8) == 7 }
	u.patient = true

	for range 6 {
		if c.yes(3) {
			for range c.below(3) {
				s.notify(asyncs[c.below(len(asyncs))])
			}
		}
		if !s.transaction(u, &c, &reading) {
			break
		}
		s.skipping, s.status, u.status = false, 'I', 'I'
	}
	reading = true
	_ = u.rest()
	require.Equal(t, types(s.seen), types(u.got))
	require.Equal(t, s.seen, u.got)
}

// transaction plays one, and returns whether the connection is still there.
func (s *server) transaction(u *user, c *choices, reading *bool) bool {
	s.refuse, s.noAnswer = "", ""
	single, lazy := c.yes(2), c.below(4) < 3
	if lazy {
		if c.below(8) == 7 {
			s.refuse = [...]string{"ERROR", "FATAL"}[c.below(2)]
		}
		u.conn.Begin(beginMsgs, single)
	} else {
		s.status = 'T'
		u.conn.Reset()
		u.status = 'T'
	}
	asked := false
	first := len(s.ran)
	for turn := range 1 + c.below(3) {
		k := flightsOf[c.below(len(flightsOf))]
		question := k.asks && !asked && c.yes(2)
		if c.below(8) == 7 {
			s.noAnswer = [...]string{"ERROR", "FATAL"}[c.below(2)]
		}
		u.conn.Behind(nil)
		if question {
			u.conn.Behind(questionMsgs)
		}
		_, isQuery := k.flight[0].(*pgproto3.Query)
		s.ahead = single && isQuery && turn == 0 && lazy
		s.asked = question && isQuery
		*reading = false
		u.send(k.flight...)
		if k.then != nil {
			u.send(k.then...)
		}
		*reading = true
		for want := u.ready + 1; u.ready < want; {
			if u.read() != nil {
				return false
			}
		}
		*reading = false
		answer, values := u.conn.Answer()
		asked = asked || answer != NoAnswer
		if answer == Answered {
			require.Equal(u.t, answered, values)
		}
		require.Equal(u.t, s.refuse != "", u.conn.Refused())
		if lazy && s.refuse != "" {
			require.Equal(u.t, []string{"I begin"}, s.ran[first:], "nothing is run outside of the transaction")
			return true
		}
		require.Equal(u.t, s.status, u.conn.Status(u.status))
		if s.status == 'I' {
			return true
		}
	}
	for i, ran := range s.ran[first:] {
		if want := byte('T'); i > 0 {
			require.Equal(u.t, want, ran[0], fmt.Sprint(s.ran[first:]))
		}
	}
	return true
}

func FuzzTheUserSeesWhatItWouldHaveSeenWithoutUs(f *testing.F) {
	f.Add([]byte{})
	for i := range uint64(32) {
		f.Add([]byte(random(1000+i, 200)))
	}
	f.Fuzz(func(t *testing.T, data []byte) { play(t, data) })
}

func TestTheUserSeesWhatItWouldHaveSeenWithoutUsHoweverItIsReadAndSplit(t *testing.T) {
	for i := range uint64(200) {
		if !t.Run(fmt.Sprint(i), func(t *testing.T) { play(t, random(i, 1000)) }) {
			return
		}
	}
}
