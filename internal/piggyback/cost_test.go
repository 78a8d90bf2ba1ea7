package piggyback

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// replay is a connection that answers each flight with the same bytes.
type replay struct {
	answer []byte
	at     int
	sent   int
}

func (r *replay) Write(p []byte) (int, error) {
	r.at, r.sent = 0, len(p)
	return len(p), nil
}

func (r *replay) Read(p []byte) (int, error) {
	n := copy(p, r.answer[r.at:])
	r.at += n
	return n, nil
}

func complete(tag string) *pgproto3.CommandComplete {
	return &pgproto3.CommandComplete{CommandTag: []byte(tag)}
}

var (
	ready = &pgproto3.ReadyForQuery{TxStatus: 'T'}
	row   = &pgproto3.DataRow{Values: [][]byte{[]byte("4711"), nil, []byte("read committed")}}
)

func TestWhatTravelsAllocatesNothing(t *testing.T) {
	parse, bind := &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}
	for _, k := range []struct {
		name   string
		flight []byte
		answer []byte
		saw    string
	}{
		{
			"a Query", encode(query(sqlRows)),
			encodeAll(t, parse, bind, complete("BEGIN"), row, complete("SELECT 1"), ready, parse, bind, row, complete("SELECT 1"), ready), "DCZ",
		},
		{
			"an execution", encode(executed(sqlRows)...),
			encodeAll(t, parse, bind, complete("BEGIN"), parse, bind, row, complete("SELECT 1"), parse, bind, row, complete("SELECT 1"), ready), "12DCZ",
		},
	} {
		t.Run(k.name, func(t *testing.T) {
			r := &replay{answer: k.answer}
			c := New(r, r)
			p := make([]byte, 8192)
			n := 0
			allocs := testing.AllocsPerRun(200, func() {
				c.Begin(beginMsgs, false)
				c.Behind(questionMsgs)
				_, _ = c.Write(k.flight)
				n, _ = c.Read(p)
				_, _ = c.Answer()
			})
			require.Zero(t, allocs)
			require.Greater(t, r.sent, len(k.flight)+len(beginMsgs)+len(questionMsgs)-1)
			require.Equal(t, k.saw, types(p[:n]))
			answer, values := c.Answer()
			require.Equal(t, Answered, answer)
			require.Equal(t, answered, values)
		})
	}
}

func TestWhereNothingTravelsNothingIsAllocatedOrCopied(t *testing.T) {
	flight := encode(query(sqlRows))
	r := &replay{answer: encodeAll(t, row, complete("SELECT 1"), ready)}
	c := New(r, r)
	p := make([]byte, 8192)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		_, _ = c.Write(flight)
		_, _ = c.Read(p)
	}))
	require.Nil(t, c.buf)
	require.Nil(t, c.scratch)
}

func BenchmarkNothingTravels(b *testing.B) {
	few, many := []pgproto3.BackendMessage{row, complete("SELECT 1"), ready}, []pgproto3.BackendMessage{}
	for range 200 {
		many = append(many, row)
	}
	for name, answer := range map[string][]pgproto3.BackendMessage{"a row": few, "200 rows": append(many, few...)} {
		b.Run(name, func(b *testing.B) {
			flight := encode(query(sqlRows))
			r := &replay{}
			for _, m := range answer {
				r.answer, _ = m.Encode(r.answer)
			}
			c := New(r, r)
			p := make([]byte, 8192)
			for b.Loop() {
				_, _ = c.Write(flight)
				_, _ = c.Read(p)
			}
		})
	}
}

func BenchmarkBeginAndQuestionTravel(b *testing.B) {
	parse, bind := &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}
	flight := encode(executed(sqlRows)...)
	r := &replay{}
	for _, m := range []pgproto3.BackendMessage{
		parse, bind, complete("BEGIN"), parse, bind, row, complete("SELECT 1"), parse, bind, row, complete("SELECT 1"), ready,
	} {
		r.answer, _ = m.Encode(r.answer)
	}
	c := New(r, r)
	p := make([]byte, 8192)
	for b.Loop() {
		c.Begin(beginMsgs, false)
		c.Behind(questionMsgs)
		_, _ = c.Write(flight)
		_, _ = c.Read(p)
		_, _ = c.Answer()
	}
}
