package main

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
)

// runAll does the work of each contender of each group a few times.
func runAll(t *testing.T, groups []group) {
	t.Helper()
	for _, g := range groups {
		for _, c := range g.contenders {
			require.NoError(t, c.run(3), "%s: %s", g.title, c.name)
			if c.renew != nil {
				c.renew()
				require.NoError(t, c.run(3), "%s: %s, anew", g.title, c.name)
			}
		}
	}
}

func TestEveryContenderDoesItsWorkWithoutAServer(t *testing.T) {
	groups := append(retryGroups(t.Context()), delayGroup(), combinedGroup(t.Context()))
	groups = append(append(groups, breakerGroups()...), budgetGroups()...)
	runAll(t, groups)
}

func TestEveryContenderDoesItsWorkOverTheConnectionInMemory(t *testing.T) {
	groups, done, err := layerGroups(t.Context())
	require.NoError(t, err)
	defer done()
	runAll(t, groups)
}

func TestEveryContenderDoesItsWorkOnAServer(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a PostgreSQL server, and -short was given")
	}
	groups, done, err := serverGroups(t.Context())
	require.NoError(t, err)
	defer done()
	runAll(t, groups)
}

func TestEveryLoopMakesTheSameNumberOfAttempts(t *testing.T) {
	for _, c := range retryContenders(t.Context(), attempts-1, atOnce) {
		require.NoError(t, c.run(2), "%s: it succeeds at its last attempt", c.name)
	}
	for i := range retryContenders(t.Context(), attempts, atOnce) {
		c := retryContenders(t.Context(), attempts, atOnce)[i] // they share their operation, which counts
		require.Error(t, c.run(1), "%s: there is no attempt more", c.name)
	}
}

func TestAQueryOverTheConnectionInMemoryHasItsRow(t *testing.T) {
	list, err := openDatabases(t.Context(), "postgres://app@wire.invalid/app?sslmode=disable", dialWire)
	require.NoError(t, err)
	defer func() { require.NoError(t, list.close()) }()
	for _, d := range list {
		require.Equal(t, []int64{1}, numbers(t, d.db), d.name)
		result, err := d.db.ExecContext(t.Context(), "insert into item (note) values ($1)", 1)
		require.NoError(t, err)
		inserted, err := result.RowsAffected()
		require.NoError(t, err)
		require.EqualValues(t, 1, inserted, d.name)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, d.db.PingContext(ctx), context.Canceled, d.name)
	}
}

func numbers(t *testing.T, db *sql.DB) (list []int64) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "select $1::bigint", 1)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var n int64
		require.NoError(t, rows.Scan(&n))
		list = append(list, n)
	}
	require.NoError(t, rows.Err())
	return list
}
