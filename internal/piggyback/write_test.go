package piggyback

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

var errBroken = errors.New("broken pipe")

// recorder is a connection that breaks when it has taken so many bytes.
type recorder struct {
	got    []byte
	breaks int // 0: never
	writes int
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes++
	n := len(p)
	if r.breaks > 0 {
		n = min(n, r.breaks-1-len(r.got))
	}
	r.got = append(r.got, p[:n]...)
	if n < len(p) {
		return n, errBroken
	}
	return n, nil
}

func TestACutWriteCountsWhatWasWrittenOfTheUsersOwn(t *testing.T) {
	long := strings.Repeat("x", maxCopied)
	for _, k := range []struct {
		name string
		p    []byte
		sync bool // it ends with one
	}{
		{"a Query", encode(query(sqlRows)), false},
		{"an execution", encode(executed(sqlRows)...), true},
		{"a long Query", encode(query(long)), false},
		{"a long execution", encode(executed(long)...), true},
	} {
		for _, begins := range []bool{false, true} {
			for _, asks := range []bool{false, true} {
				var ahead, behind []byte
				body := k.p
				if begins {
					ahead = beginMsgs
				}
				if asks {
					behind = append(bytes.Clone(questionMsgs), syncMsg...)
					if k.sync {
						body = k.p[:len(k.p)-headerLen]
					}
				}
				all := append(append(bytes.Clone(ahead), body...), behind...)
				for cut := range len(all) + 1 {
					if cut > 500 && cut < len(all)-500 {
						continue
					}
					w := &recorder{breaks: cut + 1}
					c := New(nil, w)
					if begins {
						c.Begin(beginMsgs, false)
					}
					if asks {
						c.Behind(questionMsgs)
					}
					n, err := c.Write(k.p)
					require.Equal(t, string(all[:cut]), string(w.got))
					if cut == len(all) {
						require.NoError(t, err)
						require.Equal(t, len(k.p), n)
						continue
					}
					require.ErrorIs(t, err, errBroken)
					require.LessOrEqual(t, n, len(k.p))
					if cut <= len(ahead) {
						require.Zero(t, n, "nothing of it was written")
					} else {
						require.Equal(t, min(cut-len(ahead), len(body)), min(n, len(body)))
					}
					require.False(t, c.Waits(), "BEGIN may have been sent")
				}
			}
		}
	}
}

func TestALongFlightIsNotCopied(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, k := range []struct{ p, sent []byte }{
		{encode(query(long)), encode(messages(statement(sqlBegin), msgs(query(long)), executed(sqlQuestion))...)},
		{encode(executed(long)...), encode(messages(statement(sqlBegin), statement(long), executed(sqlQuestion))...)},
	} {
		w := &recorder{}
		c := New(nil, w)
		c.Begin(beginMsgs, false)
		c.Behind(questionMsgs)
		n, err := c.Write(k.p)
		require.NoError(t, err)
		require.Equal(t, len(k.p), n)
		require.Equal(t, 3, w.writes)
		require.True(t, bytes.Equal(k.sent, w.got))
		require.LessOrEqual(t, cap(c.scratch), maxCopied)
	}
}

func TestAWriteThatFailsBeforeBeginIsAnsweredIsThatOfTheQuery(t *testing.T) {
	w := &recorder{breaks: 3}
	c := New(nil, w)
	c.Begin(beginMsgs, true)
	n, err := c.Write(encode(query(sqlRows)))
	require.ErrorIs(t, err, errBroken)
	require.Zero(t, n)
}

func TestWhatIsNoFlightIsWrittenAsItIs(t *testing.T) {
	for _, p := range [][]byte{
		nil,
		encode(&pgproto3.CopyData{Data: []byte("a row")}),
		encode(&pgproto3.CopyDone{}),
		encode(&pgproto3.CopyFail{}),
		encode(&pgproto3.Terminate{}),
	} {
		w := &recorder{}
		c := New(nil, w)
		c.Begin(beginMsgs, false)
		c.Behind(questionMsgs)
		n, err := c.Write(p)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
		require.Equal(t, p, w.got)
		require.True(t, c.Waits())
	}
}

func TestWhatIsNotWholeMessagesIsWrittenAsItIs(t *testing.T) {
	for _, rest := range []string{"S", "S\x00\x00\x00\x05", "S\x00\x00\x00\x00", "S\xff\xff\xff\xff", "S\x7f\xff\xff\xff"} {
		w := &recorder{}
		c := New(nil, w)
		c.Behind(questionMsgs)
		p := append(encode(executed(sqlRows)...), rest...)
		n, err := c.Write(p)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
		require.Equal(t, p, w.got)
	}
}

func TestAStatementThatDropsPreparedStatementsIsNoticed(t *testing.T) {
	for sql, forgets := range map[string]bool{
		"discard all": true, "DISCARD ALL": true, " \n\tDeallocate x": true, "select 1": false, "disc": false, "": false,
		"discard": true, "/* here */ discard all": false,
	} {
		w := &recorder{}
		c := New(nil, w)
		_, err := c.Write(encode(query("discard all"))) // before anybody watches
		require.NoError(t, err)
		require.False(t, c.Forgotten())
		for _, flight := range [][]pgproto3.FrontendMessage{msgs(query(sql)), executed(sql), msgs(&pgproto3.Parse{Name: "s", Query: sql})} {
			c.Watch()
			require.False(t, c.Forgotten())
			_, err = c.Write(encode(flight...))
			require.NoError(t, err)
			require.Equal(t, forgets, c.Forgotten(), sql)
		}
		_, err = c.Write(encode(msgs(&pgproto3.Bind{PreparedStatement: "discard all"}, &pgproto3.Parse{})...))
		require.NoError(t, err)
		require.Equal(t, forgets, c.Forgotten(), "it stays so")
		_, err = c.Write([]byte("P"))
		require.NoError(t, err)
	}
}
