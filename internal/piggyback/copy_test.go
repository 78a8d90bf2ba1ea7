package piggyback

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// overPipe serves a Conn over a connection without a buffer.
func overPipe(t *testing.T, serve func(*pgproto3.Backend) error) (*Conn, func()) {
	client, server := net.Pipe()
	var work sync.WaitGroup
	work.Go(func() {
		defer server.Close()
		if err := serve(pgproto3.NewBackend(server, server)); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return New(client, client), func() {
		require.NoError(t, client.Close())
		work.Wait()
	}
}

// As pgx does in a COPY: one goroutine writes the rows, without waiting for the server's consent, and another one reads.
func TestTheRowsOfACopyAreWrittenWhileAnotherGoroutineReads(t *testing.T) {
	const rows = 300
	for _, refuse := range []bool{false, true} {
		c, done := overPipe(t, func(b *pgproto3.Backend) error {
			skipping, got := refuse, 0
			for {
				m, err := b.Receive()
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return nil // the client has closed the connection
				}
				if err != nil {
					return err
				}
				answered := true
				switch m.(type) {
				case *pgproto3.Parse:
					if refuse {
						b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "XX000"})
					} else {
						b.Send(&pgproto3.ParseComplete{})
					}
				case *pgproto3.Bind:
					if answered = !skipping; answered {
						b.Send(&pgproto3.BindComplete{})
					}
				case *pgproto3.Execute:
					if answered = !skipping; answered {
						b.Send(complete("BEGIN"))
					}
				case *pgproto3.Query:
					if answered = !skipping; answered {
						b.Send(&pgproto3.NoticeResponse{Message: "a notice"})
						b.Send(&pgproto3.CopyInResponse{})
					}
				case *pgproto3.Sync:
					skipping = false
					b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				case *pgproto3.CopyData:
					got++
					if answered = !refuse && got%10 == 0; answered {
						b.Send(&pgproto3.NoticeResponse{Message: "a notice"})
					}
				case *pgproto3.CopyDone:
					if answered = !refuse; refuse { // outside of a COPY it is ignored
						break
					}
					if got != rows {
						return errors.New("rows were lost")
					}
					b.Send(complete("COPY"))
					b.Send(ready)
					return b.Flush()
				}
				if !answered { // a pipe takes an empty message for one
					continue
				}
				if err := b.Flush(); err != nil {
					return err
				}
			}
		})
		c.Begin(beginMsgs, false)
		_, err := c.Write(encode(query(sqlCopyIn)))
		require.NoError(t, err)
		var work sync.WaitGroup
		work.Go(func() {
			row := encode(&pgproto3.CopyData{Data: make([]byte, 1000)})
			for range rows {
				if _, err := c.Write(row); err != nil {
					t.Errorf("write a row: %v", err)
					return
				}
			}
			if _, err := c.Write(encode(&pgproto3.CopyDone{})); err != nil {
				t.Errorf("write the end: %v", err)
			}
		})
		f := pgproto3.NewFrontend(c, nil)
		seen := ""
		for end := false; !end; {
			m, err := f.Receive()
			require.NoError(t, err)
			switch m.(type) {
			case *pgproto3.ErrorResponse:
				seen += "E"
			case *pgproto3.CopyInResponse:
				seen += "G"
			case *pgproto3.CommandComplete:
				seen += "C"
			case *pgproto3.ReadyForQuery:
				seen += "Z"
				end = true
			}
			c.Status('I') // as the hook for errors asks
		}
		work.Wait()
		if refuse {
			require.Equal(t, "EZ", seen)
			require.True(t, c.Refused())
		} else {
			require.Equal(t, "GCZ", seen)
			require.Equal(t, byte('T'), c.Status('I'))
		}
		done()
	}
}

// As pgx does with a connection that it has given up: it says goodbye on a goroutine of its own.
func TestTheEndOfTheConnectionIsWrittenWhileItsUserGoesOn(t *testing.T) {
	c, done := overPipe(t, func(b *pgproto3.Backend) error {
		for {
			m, err := b.Receive()
			if err != nil {
				return err
			}
			if _, ok := m.(*pgproto3.Terminate); ok {
				return nil
			}
		}
	})
	c.Begin(beginMsgs, false)
	c.Behind(questionMsgs)
	_, err := c.Write(encode(prepared()...))
	require.NoError(t, err)
	var work sync.WaitGroup
	work.Go(func() {
		if _, err := c.Write(encode(&pgproto3.Terminate{})); err != nil {
			t.Errorf("write: %v", err)
		}
	})
	answer, _ := c.Answer()
	require.Equal(t, NoAnswer, answer)
	require.Equal(t, byte('T'), c.Status('I'))
	c.Behind(nil)
	work.Wait()
	require.Equal(t, byte('T'), c.Status('I'))
	c.Reset()
	done()
}
