package retrypg

import (
	"strings"
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

func TestTextsThatMaySwitchTransactionsAreSeen(t *testing.T) {
	for _, sql := range []string{
		"commit; begin", "COMMIT ; insert into t values (1)", "insert into t values (1); rollback; begin", "end and chain",
		"/* a */ commit and chain", "-- a\nROLLBACK  AND\nCHAIN", "abort and chain;", "begin; commit; begin", "select 1; prepare transaction 'x'; begin",
		"select 'a;b'; commit", "$$ not read for certain ; commit",
	} {
		may, _ := maySwitchTransaction(sql)
		require.True(t, may, sql)
	}
	for _, sql := range []string{
		"", "select 1", "select 1;", "select 1 ; \n", "insert into t values ('commit; begin')", "update chain set commit = 1", "commit", "rollback",
		"savepoint a", "select 1; select 2", "release savepoint commit_chain", "insert into chain values ('end')",
	} {
		may, _ := maySwitchTransaction(sql)
		require.False(t, may, sql)
	}
}

func TestTextsThatMayMakeATransactionReadWriteAreSeen(t *testing.T) {
	for _, sql := range []string{
		"set transaction read write", "SET LOCAL transaction_read_only = off", "/* a */ set transaction isolation level serializable, READ WRITE",
		"select 1; set transaction read write", "set session characteristics as transaction read write",
		"begin read write", "START TRANSACTION isolation level serializable, read write",
	} {
		require.True(t, mayWrite(sql), sql)
	}
	for _, sql := range []string{"select 'read write'", "set local statement_timeout = 5", "select read_only from t", "show transaction_read_only", "begin"} {
		require.False(t, mayWrite(sql), sql)
	}
}

func FuzzTextsThatEndATransactionInTheMiddleAreSeen(f *testing.F) {
	f.Add("select 1", "begin")
	f.Add("select 'it''s'", "insert into t values (1)")
	f.Add("/* ; */ select $a$;$a$", "select 2")
	f.Fuzz(func(t *testing.T, before, after string) {
		_, _ = maySwitchTransaction(before)
		_, _ = settingOf(before)
		_ = mayWrite(before)
		text := sqlText{s: before}
		for text.i < len(text.s) {
			if text.s[text.i] == ';' {
				text.i++
			} else if !text.skipToken() {
				return // it cannot be read for certain
			}
		}
		if strings.Trim(after, "; \t\r\n\f") == "" {
			return
		}
		may, _ := maySwitchTransaction(before + "\n; commit; " + after)
		require.True(t, may, "%q, %q", before, after)
	})
}
