package retrypg

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATextThatMayEndATransactionIsKnown(t *testing.T) {
	for _, sql := range []string{
		"commit", " COMMIT ;", "end", "-- done\ncommit", "/* a /* b */ */ commit", "insert into t values (1); commit", ";;commit",
		"rollback", "abort", "prepare transaction 'x'", "insert into t values ('commit'); end", "select $x y; commit", "commit and chain",
	} {
		require.True(t, mayEndTransaction(sql), sql)
	}
	for _, sql := range []string{
		"", ";", "insert into t values ('commit')", "update t set v = 'rollback; commit'", "select 1 -- commit", `select "commit"`,
		"select $$ commit; $$", "with commit as (select 1) select * from commit", "select 1; select 2",
	} {
		require.False(t, mayEndTransaction(sql), sql)
	}
}

func TestATransactionIsTakenForCommittedByTextOnlyWhereThatIsCertain(t *testing.T) {
	require.Equal(t, "COMMIT", textEnd('T', "commit", "COMMIT"))
	require.Equal(t, "COMMIT", textEnd('T', "insert into t values (1); commit", "COMMIT"))
	require.Equal(t, "SELECT 1", textEnd('T', "commit; select 1", "SELECT 1"))
	for _, sql := range []string{"rollback; commit", "ROLLBACK", "abort; commit", "prepare transaction 'x'; commit"} {
		require.Equal(t, "ROLLBACK", textEnd('T', sql, "COMMIT"), sql)
	}
	require.Equal(t, "ROLLBACK", textEnd('E', "commit", "ROLLBACK"))
}

func FuzzATextOfWhichAPartEndsTheTransactionMayEndIt(f *testing.F) {
	for _, s := range []string{"", "select 1", "insert into t values ('a')", "select $$x$$", "-- c\n", "/* c */", "update t set v = E'\\''"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, before string) {
		if rerunnable(before) { // one whole statement
			require.True(t, mayEndTransaction(before+";commit"), "%q", before)
		}
		_ = mayEndTransaction(before)
	})
}
