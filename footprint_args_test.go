package retrypg

import (
	"math/big"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/contention"
)

func values(marks []contention.Mark) (list []uint64) {
	for _, m := range marks {
		list = append(list, m.Value)
	}
	return list
}

type accountID struct {
	bank string
	no   int
}

func TestEqualArgumentsAtOnePlaceAreOneMarkAndAllOthersDiffer(t *testing.T) {
	const sql = "update account set x = 1 where id = $1"
	now := time.Now()
	args := []any{
		1, 2, "1", []byte("1"), 1.5, true, now, now.Add(1), [16]byte{1}, accountID{"a", 1}, accountID{"a", 2}, []byte(nil), "",
	}
	seen := make(map[uint64]any)
	for _, arg := range args {
		marks := marksOf(sql, []any{arg})
		require.Len(t, marks, 1, "%T", arg)
		require.Equal(t, marks, marksOf(sql, []any{arg}))
		was, twice := seen[marks[0].Value]
		require.False(t, twice, "%v and %v", was, arg)
		seen[marks[0].Value] = arg
	}
	one := marksOf(sql, []any{1})[0]
	require.NotEqual(t, one.Place, marksOf(sql+" ", []any{1})[0].Place)
	require.NotEqual(t, one.Value, marksOf(sql+" ", []any{1})[0].Value)
	second := marksOf(sql, []any{nil, 1})
	require.Len(t, second, 1, "NULL is no mark")
	require.NotEqual(t, one.Place, second[0].Place)
	require.NotEqual(t, one.Value, second[0].Value)
}

func TestAListIsAsManyArgumentsAtOnePlace(t *testing.T) {
	list := marksOf("x", []any{[]int64{3, 1, 2}})
	require.Len(t, list, 3)
	require.Equal(t, values(list)[1:2], values(marksOf("x", []any{int64(1)})), "also where others give one alone")
	for _, m := range list {
		require.Equal(t, list[0].Place, m.Place)
	}
	require.Len(t, marksOf("x", []any{make([]string, 1000)}), maxElements)
	require.Empty(t, marksOf("x", []any{[]int(nil)}))
}

func TestNamedArgumentsHaveTheirPlacesByName(t *testing.T) {
	a := marksOf("x", []any{pgx.NamedArgs{"id": 1}})
	require.Len(t, a, 1)
	require.Equal(t, a, marksOf("x", []any{pgx.StrictNamedArgs{"id": 1}}))
	require.NotEqual(t, a[0].Place, marksOf("x", []any{pgx.NamedArgs{"no": 1}})[0].Place)
	require.Len(t, marksOf("x", []any{pgx.NamedArgs{"a": []int{1, 2}, "b": nil, "c": &struct{}{}}}), 2)
}

func TestWhatCannotBeComparedIsNoMarkAndIsNotCopied(t *testing.T) {
	n := 1
	for _, arg := range []any{
		&n, big.NewInt(1),
		map[string]int{"a": 1},
		[]any{1},
		[][]byte{{1}},
		struct{ p *int }{&n},
		func() {}, make(chan int),
		[1]any{1},
		pgx.QueryResultFormatsByOID{1: 1},
		struct{ x any }{[]int{1}},
	} {
		require.Empty(t, marksOf("x", []any{arg}), "%T", arg)
		_, ok := copied([]any{arg})
		require.False(t, ok, "%T", arg)
		_, ok = copied([]any{pgx.NamedArgs{"a": arg}})
		require.False(t, ok, "%T", arg)
	}
}

func TestWhatTheCallerDoesWithItsArgumentsAfterTheCallChangesNoCopy(t *testing.T) {
	data, list, named := []byte("old"), []int{1, 2}, pgx.NamedArgs{"a": []string{"old"}}
	args := []any{data, list, named, nil, "x", []byte(nil), pgx.QueryExecModeExec, pgx.QueryResultFormats{1}, accountID{"a", 1}}
	kept, ok := copied(args)
	require.True(t, ok)
	copy(data, "new")
	list[0] = 9
	named["a"].([]string)[0] = "new"
	named["b"] = 1
	args[4] = "y"
	require.Equal(t, []any{
		[]byte("old"), []int{1, 2}, pgx.NamedArgs{"a": []string{"old"}}, nil, "x", []byte(nil), pgx.QueryExecModeExec, pgx.QueryResultFormats{1}, accountID{"a", 1},
	}, kept, "and all are of the same types")
}
