package driver_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// got is what a caller of database/sql finds in a result: of each column the type that the driver names, and the values.
type got struct {
	columns []string
	values  [][]any
}

func query(ctx context.Context, db *sql.DB, text string, args []any) (g got, err error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return g, err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return g, err
	}
	for _, c := range types {
		length, hasLength := c.Length()
		precision, scale, hasScale := c.DecimalSize()
		g.columns = append(g.columns, fmt.Sprint(c.Name(), c.DatabaseTypeName(), c.ScanType(), length, hasLength, precision, scale, hasScale))
	}
	for rows.Next() {
		row := make([]any, len(types))
		to := make([]any, len(types))
		for i := range row {
			to[i] = &row[i]
		}
		if err := rows.Scan(to...); err != nil {
			return g, err
		}
		g.values = append(g.values, row)
	}
	return g, rows.Err()
}

func TestArgumentsAndResultsAreThoseOfPlainPgx(t *testing.T) {
	server := newServer(t)
	for name, tc := range map[string]struct {
		query string
		args  []any
		rows  int
		modes []string // nil: all
	}{
		"types": {
			query: `select 1::int2, 2::int4, 3::int8, 1.5::float4, 2.5::float8, 1.25::numeric(5,2), true, 'a'::text, 'b'::varchar(3),
				'\x01'::bytea, '2026-01-02'::date, '2026-01-02 03:04:05'::timestamp, '2026-01-02 03:04:05+00'::timestamptz,
				'{"a":1}'::json, '{"a":1}'::jsonb, '{1,2}'::int[], 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'::uuid, null::int, 12::oid`,
			rows: 1,
		},
		"no rows":         {query: "select n from t where n = $1", args: []any{7}},
		"several rows":    {query: "select n, n::text from generate_series(1, 100) n where n <= $1", args: []any{50}, rows: 50},
		"named arguments": {query: "select @a::int, @b::text", args: []any{pgx.NamedArgs{"a": 1, "b": "x"}}, rows: 1},
		"array argument":  {query: "select n from generate_series(1, 9) n where n = any($1)", args: []any{[]int32{2, 3}}, rows: 2},
		"JSON argument": {
			query: "select $1::jsonb", args: []any{map[string]any{"a": []int{1, 2}}}, rows: 1,
			modes: []string{"cache_statement", "cache_describe", "describe_exec"}, // the others do not know the type
		},
		"time argument":     {query: "select $1::timestamptz", args: []any{time.Unix(1700000000, 0).UTC()}, rows: 1},
		"exec mode first":   {query: "select $1::int", args: []any{pgx.QueryExecModeSimpleProtocol, 5}, rows: 1},
		"exec mode alone":   {query: "select 5", args: []any{pgx.QueryExecModeExec}, rows: 1},
		"result formats":    {query: "select $1::int, 'x'::text", args: []any{pgx.QueryResultFormats{0, 0}, 5}, rows: 1},
		"formats by OID":    {query: "select $1::int, 'x'::text", args: []any{pgx.QueryResultFormatsByOID{23: 0}, 5}, rows: 1},
		"null argument":     {query: "select $1::int is null", args: []any{nil}, rows: 1},
		"sql.Null argument": {query: "select $1::int", args: []any{sql.NullInt64{Int64: 5, Valid: true}}, rows: 1},
		"insert returning":  {query: "insert into t values ($1) returning n", args: []any{1}, rows: 1},
	} {
		for _, mode := range execModes {
			if tc.modes != nil && !slices.Contains(tc.modes, mode) {
				continue
			}
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, server)
				want, wantErr := query(s.context(), s.open(plain, "default_query_exec_mode="+mode), tc.query, tc.args)
				have, err := query(s.context(), s.open(ours, "default_query_exec_mode="+mode), tc.query, tc.args)
				require.NoError(t, wantErr)
				require.NoError(t, err)
				require.Equal(t, want, have)
				require.Len(t, have.values, tc.rows)
			})
		}
	}
}

func TestRowsAffectedIsThatOfPlainPgx(t *testing.T) {
	server := newServer(t)
	for _, mode := range execModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, server)
			for _, driver := range drivers {
				db := s.open(driver, "default_query_exec_mode="+mode)
				res, err := db.ExecContext(s.context(), "insert into t select * from generate_series(1, $1)", 5)
				require.NoError(t, err)
				n, err := res.RowsAffected()
				require.NoError(t, err)
				require.EqualValues(t, 5, n)
				_, err = res.LastInsertId()
				require.Error(t, err)
			}
		})
	}
}
