package piggyback

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
)

// sumOf returns the sum of what is read in pieces of a size.
func sumOf(t testing.TB, stream []byte, size int) uint64 {
	t.Helper()
	c := New(bytes.NewReader(stream), nil)
	require.True(t, c.Digest())
	for p := make([]byte, size); ; {
		n, err := c.Read(p)
		if err != nil {
			break
		}
		require.Positive(t, n)
	}
	sum, known := c.Sum()
	require.True(t, known)
	return sum
}

func rowOf(values ...string) *pgproto3.DataRow {
	r := &pgproto3.DataRow{}
	for _, v := range values {
		r.Values = append(r.Values, []byte(v))
	}
	return r
}

var (
	description = &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}}
	notice      = &pgproto3.NoticeResponse{Message: "DC"}
	some        = []pgproto3.BackendMessage{description, rowOf("1", "2"), rowOf(), rowOf("C"), complete("SELECT 3"), ready}
)

func TestTheSumIsThatOfRowsAndTagsHoweverTheyArriveAndWhateverIsBetween(t *testing.T) {
	want := sumOf(t, encodeAll(t, some...), 8192)
	var mixed []pgproto3.BackendMessage
	for _, m := range some {
		mixed = append(mixed, notice, &pgproto3.ParseComplete{}, m, &pgproto3.NotificationResponse{Payload: "D"}, &pgproto3.ParameterStatus{Name: "C"})
	}
	for _, list := range [][]pgproto3.BackendMessage{some, some[1:], some[:5], mixed} {
		stream := encodeAll(t, list...)
		for size := 1; size <= len(stream); size++ {
			require.Equal(t, want, sumOf(t, stream, size))
		}
	}
}

func TestTheSumTellsEveryDifference(t *testing.T) {
	seen := make(map[uint64]string)
	for _, list := range [][]pgproto3.BackendMessage{
		{},
		{rowOf()},
		{rowOf(), rowOf()},
		{complete("SELECT 0")},
		{rowOf("1"), complete("SELECT 1")},
		{rowOf("2"), complete("SELECT 1")},
		{rowOf("1"), complete("SELECT 1"), rowOf("2"), complete("SELECT 1")},
		{rowOf("2"), complete("SELECT 1"), rowOf("1"), complete("SELECT 1")},
		{rowOf("1"), rowOf("2"), complete("SELECT 2")},
		{rowOf("12"), complete("SELECT 2")},
		{rowOf("1", "2"), complete("SELECT 2")},
		{&pgproto3.DataRow{Values: [][]byte{nil}}},
		{&pgproto3.DataRow{Values: [][]byte{{}}}},
		{complete("INSERT 0 1")},
	} {
		sum := sumOf(t, encodeAll(t, list...), 8192)
		was, twice := seen[sum]
		require.False(t, twice, "%s and %v", was, list)
		seen[sum] = fmt.Sprint(list)
	}
}

func TestThereIsNoSumWhereNobodyHasAskedForOneOrItCannotBeTold(t *testing.T) {
	c := New(bytes.NewReader(encodeAll(t, notice, rowOf("1"))), nil)
	_, known := c.Sum()
	require.False(t, known)
	p := make([]byte, 7) // a part of the notice
	_, err := c.Read(p)
	require.NoError(t, err)
	require.False(t, c.Digest())
	_, known = c.Sum()
	require.False(t, known)

	c = New(bytes.NewReader(nil), nil)
	require.True(t, c.Digest())
	c.Begin(beginMsgs, false)
	_, known = c.Sum()
	require.False(t, known, "of another transaction")
}

// TestTheSumIsTheSameWhateverTravels: what is taken out is not read by the user.
func TestTheSumIsTheSameWhateverTravels(t *testing.T) {
	for name, flight := range nextFlights() {
		var want uint64
		for i, travels := range []string{"nothing", "begin", "question", "both", "again"} {
			for _, size := range []int{1, 5, 8192} {
				s := newServer()
				u := begunAgain(t, s)
				u.size = func() int { return size }
				s.async = between(1)
				switch travels {
				case "begin", "both":
					s.status = 'I'
					u.conn.Begin(beginMsgs, false)
				case "again":
					u.conn.BeginAgain(rollbackMsgs, beginMsgs)
				}
				if travels == "question" || travels == "both" {
					u.conn.Behind(questionMsgs)
				}
				require.True(t, u.conn.Digest())
				u.send(flight...)
				u.await(1)
				_ = u.rest()
				sum, known := u.conn.Sum()
				require.True(t, known)
				if i == 0 {
					want = sum
				}
				require.Equal(t, want, sum, "%s with %s in pieces of %d", name, travels, size)
			}
		}
	}
}

func FuzzDigest(f *testing.F) {
	f.Add([]byte("D"), uint8(1), uint8(1))
	stream, _ := rowOf("1", "2").Encode(nil)
	f.Add(stream, uint8(3), uint8(7))
	f.Add([]byte{'D', 0, 0, 0, 0, 'C', 0, 0, 0, 3, 'C', 0xff, 0xff, 0xff, 0xff, 1, 2, 3}, uint8(2), uint8(5))
	f.Fuzz(func(t *testing.T, stream []byte, one, other uint8) {
		// No stream makes it fail, and none has another sum in other pieces.
		require.Equal(t, sumOf(t, stream, int(one)+1), sumOf(t, stream, int(other)+1))
		// What is no row and no tag does not count.
		notice, err := (&pgproto3.NoticeResponse{Message: string(bytes.ReplaceAll(stream, []byte{0}, []byte{1}))}).Encode(nil)
		require.NoError(t, err)
		rows, err := rowOf(string(stream), "x").Encode(nil)
		require.NoError(t, err)
		require.Equal(t, sumOf(t, rows, int(one)+1), sumOf(t, append(append(notice, rows...), notice...), int(other)+1))
	})
}
