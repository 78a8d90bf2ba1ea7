package pgtest

import (
	"encoding/binary"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

type wireMessage interface {
	Encode(dst []byte) ([]byte, error)
}

func encoded(t testing.TB, msgs ...wireMessage) []byte {
	t.Helper()
	var buf []byte
	for _, msg := range msgs {
		var err error
		buf, err = msg.Encode(buf)
		require.NoError(t, err)
	}
	return buf
}

// read takes a stream apart and lets the tracker see it.
func readAll(t testing.TB, tr *tracker, dir Direction, stream []byte) []Message {
	t.Helper()
	var list []Message
	for len(stream) > 0 {
		text, ok := splitMessage(stream)
		require.True(t, ok)
		require.NotNil(t, text)
		stream = stream[len(text):]
		m := Message{Dir: dir, Type: text[0], Body: text[5:]}
		if dir == FromClient {
			tr.fromClient(&m)
		} else {
			tr.fromServer(&m)
		}
		list = append(list, m)
	}
	return list
}

func sqlOf(list []Message) []string {
	var texts []string
	for _, m := range list {
		texts = append(texts, string(m.Type)+" "+m.SQL)
	}
	return texts
}

func TestPipelinedAnswersAreMatchedToTheirStatements(t *testing.T) {
	tr := newTracker()
	up := readAll(t, &tr, FromClient, encoded(t,
		&pgproto3.Parse{Name: "a", Query: "insert 1"}, &pgproto3.Bind{PreparedStatement: "a"}, &pgproto3.Execute{},
		&pgproto3.Parse{Query: "select 2"}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{},
		&pgproto3.Sync{},
		&pgproto3.Bind{PreparedStatement: "a"}, &pgproto3.Execute{}, &pgproto3.Execute{}, &pgproto3.Sync{},
		&pgproto3.Query{String: "select 3"},
		&pgproto3.Parse{Name: "b", Query: "insert 4"}, &pgproto3.Sync{},
	))
	require.Equal(t, []string{
		"P insert 1", "B insert 1", "E insert 1", "P select 2", "B select 2", "D select 2", "E select 2", "S select 2",
		"B insert 1", "E insert 1", "E insert 1", "S insert 1", "Q select 3", "P insert 4", "S ",
	}, sqlOf(up))
	row, done := &pgproto3.DataRow{}, &pgproto3.CommandComplete{CommandTag: []byte("X")}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'T'}
	down := readAll(t, &tr, FromServer, encoded(t,
		&pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, done,
		&pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, row, row, done, ready,
		&pgproto3.BindComplete{}, &pgproto3.ErrorResponse{Code: "23505"}, ready,
		row, done, row, row, done, ready,
		&pgproto3.ParseComplete{}, ready,
	))
	require.Equal(t, []string{
		"1 insert 1", "2 insert 1", "C insert 1", "1 select 2", "2 select 2", "D select 2", "D select 2", "C select 2", "Z select 2",
		"2 insert 1", "E insert 1", "Z insert 1",
		"D select 3", "C select 3", "D select 3", "D select 3", "C select 3", "Z select 3", "1 ", "Z ",
	}, sqlOf(down))
	require.Equal(t, "23505", down[10].Code)
	require.Equal(t, byte('T'), down[11].TxStatus)
	require.Equal(t, []int{1, 1, 2}, []int{down[12].Row, down[14].Row, down[15].Row}, "rows are counted for each statement")
	require.Empty(t, tr.pending)
}

func FuzzTrackerTakesAnyMessages(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(encoded(f, &pgproto3.Query{String: "select 1"}), encoded(f, &pgproto3.ReadyForQuery{TxStatus: 'I'}))
	f.Add(encoded(f, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}),
		encoded(f, &pgproto3.ErrorResponse{Code: "40001"}, &pgproto3.CommandComplete{}))
	f.Add([]byte{'D', 0, 0, 0, 4, 'E', 0, 0, 0, 5, 'C'}, []byte{'K', 0, 0, 0, 4, 'Z', 0, 0, 0, 4})
	f.Fuzz(func(t *testing.T, up, down []byte) {
		tr := newTracker()
		for dir, stream := range [][]byte{up, down} {
			for {
				text, ok := splitMessage(stream)
				if !ok || text == nil {
					break
				}
				require.Equal(t, len(text), 1+int(binary.BigEndian.Uint32(text[1:])))
				stream = stream[len(text):]
				m := Message{Type: text[0], Body: text[5:]}
				if Direction(dir) == FromClient {
					before := len(tr.pending)
					tr.fromClient(&m)
					require.LessOrEqual(t, len(tr.pending), before+1)
				} else {
					tr.fromServer(&m)
				}
			}
		}
	})
}
