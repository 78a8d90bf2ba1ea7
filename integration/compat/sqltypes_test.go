package compat_test

import (
	"database/sql"
	"encoding/json"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
)

// scanned is what a program may scan the types of PostgreSQL into. Each of them is read as NULL too.
var scanned = []struct {
	expr  string
	dests func() []func() any
}{
	{"true", into[bool, sql.NullBool, any, string]},
	{"-9223372036854775808::bigint", into[int64, sql.NullInt64, any, string]},
	{"7::smallint", into[int16, sql.NullInt16, any, float64]},
	{"1.5::real", into[float32, sql.NullFloat64, any, int]},
	{"'NaN'::double precision", into[float64, sql.NullFloat64, any, string]},
	{"12345678901234567890.000000001::numeric", into[string, pgtype.Numeric, any, float64]},
	{"'grüße'::text", into[string, sql.NullString, any, []byte]},
	{"'ab'::char(5)", into[string, sql.NullString, any, []byte]},
	{`'\x00ff10'::bytea`, into[[]byte, string, any, sql.Null[[]byte]]},
	{"'2024-02-29'::date", into[time.Time, sql.NullTime, any, string]},
	{"'2024-02-29 12:30:00.123456'::timestamp", into[time.Time, sql.NullTime, any, string]},
	{"'2024-02-29 12:30:00.123456+02'::timestamptz", into[time.Time, sql.NullTime, any, string]},
	{"'infinity'::timestamptz", into[time.Time, pgtype.Timestamptz, any, string]},
	{"'12:30:00.5'::time", into[string, pgtype.Time, any, time.Time]},
	{"'1 year 2 days 3.5 s'::interval", into[string, pgtype.Interval, any, time.Duration]},
	{"'0191e1a2-7c3b-7def-8000-0123456789ab'::uuid", into[uuid.UUID, uuid.NullUUID, any, string]},
	{`'{"a": [1, null, "x"]}'::jsonb`, into[[]byte, json.RawMessage, any, string]},
	{`'{"a" : 1}'::json`, into[[]byte, string, any, map[string]any]},
	{"array[1, null, 3]", into[pgtype.FlatArray[*int], pgtype.Array[*int], any, string]},
	{"array[1, 2]::bigint[]", into[pq.Int64Array, []int64, any, string]},
	{`array['a', 'b"c', null]::text[]`, into[pgtype.FlatArray[pgtype.Text], pq.StringArray, any, string]},
	{"'10.0.0.1/8'::inet", into[string, netip.Prefix, any, netip.Addr]},
	{"int4range(1, 5)", into[string, pgtype.Range[pgtype.Int4], any, []byte]},
	{"point(1, 2)", into[string, pgtype.Point, any, []byte]},
	{"row(1, 'x')", into[string, []byte, any, []any]},
	{"b'101'", into[string, pgtype.Bits, any, []byte]},
	{"'a=>1'::text::xml", into[string, []byte, any, bool]},
}

// into returns makers of pointers to four types.
func into[A, B, C, D any]() []func() any {
	return []func() any{
		func() any { return new(A) }, func() any { return new(B) }, func() any { return new(C) }, func() any { return new(D) },
	}
}

func TestTypesAreScannedTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		for _, c := range scanned {
			for _, value := range []string{c.expr, "nullif(" + c.expr + ", " + c.expr + ")"} {
				for _, dest := range c.dests() {
					p := dest()
					s.fail(value, s.db.QueryRowContext(s.ctx, "select "+value).Scan(p))
					s.note(value, p)
				}
			}
		}
	})
}

// passed are arguments with a type to cast them to.
var passed = []struct {
	cast  string
	value any
}{
	{"int", 7},
	{"int", int64(math.MaxInt64)},
	{"int", "7"},
	{"int", "seven"},
	{"int", nil},
	{"int", uint64(math.MaxUint64)},
	{"bigint", sql.NullInt64{}},
	{"bigint", sql.NullInt64{Int64: 3, Valid: true}},
	{"smallint", int8(-3)},
	{"float8", math.Inf(1)},
	{"float8", float32(0.1)},
	{"numeric", "0.1"},
	{"numeric", 0.1},
	{"numeric", pgtype.Numeric{NaN: true, Valid: true}},
	{"text", "x\ty'\\"},
	{"text", []byte("bytes")},
	{"text", "zero\x00byte"},
	{"text", "\xff"},
	{"text", 7},
	{"text", true},
	{"bytea", []byte{0, 1, 255}},
	{"bytea", []byte{}},
	{"bytea", []byte(nil)},
	{"bool", true},
	{"bool", "t"},
	{"bool", 1},
	{"timestamptz", leapDay},
	{"timestamp", leapDay.In(time.FixedZone("", 3600))},
	{"date", leapDay},
	{"date", "2024-02-29"},
	{"interval", time.Minute},
	{"interval", "1 day"},
	{"uuid", uuid.MustParse("0191e1a2-7c3b-7def-8000-0123456789ab")},
	{"uuid", "no uuid"},
	{"jsonb", map[string]any{"a": 1.5}},
	{"jsonb", json.RawMessage(`{"a":1}`)},
	{"jsonb", []byte(`[1]`)},
	{"jsonb", "wrong"},
	{"int[]", []int{1, 2}},
	{"int[]", pq.Array([]int64{1, 2})},
	{"int[]", []*int{nil}},
	{"int[]", pgtype.FlatArray[int]{}},
	{"text[]", []string{`a"b`, ""}},
	{"text[]", pq.StringArray{"x", `"`}},
	{"text[]", "{a,b}"},
	{"inet", netip.MustParseAddr("::1")},
	{"int4range", "[1,5)"},
	{"point", pgtype.Point{P: pgtype.Vec2{X: 1}, Valid: true}},
	{"int", struct{}{}},
	{"int", make(chan int)},
	{"int", new(int)},
	{"int", (*int)(nil)},
}

func TestArgumentsArePassedTheSame(t *testing.T) {
	sameOverBoth(t, allModes, func(t *testing.T, s *stage) {
		s.exec(t, "create table kept (id int, value text)")
		for i, c := range passed {
			var queried, executed sql.NullString
			label := "as " + c.cast
			s.fail(label+", query", s.db.QueryRowContext(s.ctx, "select ($1::"+c.cast+")::text", c.value).Scan(&queried))
			s.note(label, queried)
			_, err := s.db.ExecContext(s.ctx, "insert into kept values ($1, ($2::"+c.cast+")::text)", i, c.value)
			s.fail(label+", exec", err)
			if err == nil {
				require.NoError(t, s.db.QueryRowContext(s.ctx, "select value from kept where id = $1", i).Scan(&executed))
				s.note(label, executed)
			}
		}
		_, err := s.db.ExecContext(s.ctx, "select $1::int")
		s.fail("too few", err)
		_, err = s.db.ExecContext(s.ctx, "select 1", 2)
		s.fail("too many", err)
		_, err = s.db.ExecContext(s.ctx, "select $1::int", sql.Named("x", 1))
		s.fail("named", err)
	})
}
