package retrypg

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Texts that are one plain statement.
var plainStatements = []string{
	"select 1",
	"SELECT 1;",
	"  \t\r\n\fselect 1 ; \n",
	"select(1)",
	"select*from t",
	`select"a"from t`,
	"select'x'",
	"SeLeCt 1",
	"insert into t values (1)",
	"update t set a = 1 where b = $1",
	"update t set a = $1, b = $2;",
	"delete from t",
	"merge into t using s on t.a = s.a when matched then delete",
	"with x as (delete from t returning *) insert into u select * from x",
	"values (1), (2)",
	"table t",
	"-- why\nselect 1",
	"-- why\rselect 1",
	"/* why */select 1",
	"/* a /* nested; */ b; */ select 1",
	"/**/ /***/ select 1 /* ; */",
	"select 1 -- ; delete from t",
	"select 1; -- done",
	"select 1; /* done */",
	"select ';'",
	"select 'it''s; fine'",
	"select ''",
	`select 'a\b;c'`,
	`select E'it\'s; fine'`,
	`select e'a\\', 1`,
	`select E'a''b;'`,
	`select E'a' || E'b'`,
	`select ";" from "a;b""c;"`,
	`select "a\"`,
	"select $$;$$",
	"select $a$; $$ ; $b$ ; $a$",
	"select $a_1$;$a_1$",
	"select $é$;$é$",
	"select U&'d\\0061t' , B'1', X'1F', N'a;'",
	"select a/b, a*b, a-b, -1, a- -b from t",
	"select a->'b', a@>b, a?b, a::text, a[1:2]",
	"select 1 + /* ; */ 2",
	"select é from ü",
	"select @name",
	"select a */* ; */ b from t",
}

// Texts that are something else, or not certainly one statement.
var otherTexts = []string{
	"",
	" ",
	";",
	"-- only",
	"/* only */",
	"/* open",
	"/* /* half open */",
	"call p()",
	"do $$ begin commit; end $$",
	"begin",
	"commit",
	"create index concurrently i on t (a)",
	"reindex table concurrently t",
	"vacuum",
	"cluster t",
	"explain analyze delete from t",
	"execute s",
	"prepare s as select 1",
	"copy t from '/tmp/x'",
	"copy t to program 'mail'",
	"lock table t",
	"refresh materialized view v",
	"set a = 1",
	"listen x",
	"selectx",
	"select_1",
	"insert_user",
	"select$1",
	"éselect 1",
	"(select 1)",
	"\vselect 1",
	"\u3000select 1",
	"\ufeffselect 1",
	"select 1; select 2",
	"select 1;select 2;",
	"select 1;;",
	"select 1; commit",
	"insert into t values (1); commit; select f()",
	"select 1 -- a\n; delete from t",
	"select 1 -- a\r; delete from t",
	"select 1 /* a */; delete from t",
	"select 1 /* /* */ ; */ ; delete from t",
	"select 'a'; delete from t --'",
	`select 'a\'; delete from t --'`,
	`select '\\'`,
	`select E'\\'; delete from t --'`,
	`select E'a''\''; delete from t --'`,
	"select E'a'\n'b\\'; delete from t --'",
	"select E'a' -- c\n'b\\'; delete from t --'",
	"select E'a' /* c */ 'b'",
	`select "a"; delete from t --"`,
	`select "a\"; delete from t --"`,
	"select $$a$$; delete from t --$$",
	"select $a$ $b$ $a$; delete from t --$b$",
	"select a$b$; delete from t; select $b$",
	"select 1$b$; delete from t; select $b$",
	"select $1$b$; delete from t; select $b$",
	"select $1a",
	"select v$session",
	"select $",
	"select $a",
	"select $a b$ x $a b$",
	"select '",
	"select 'a",
	"select E'a\\",
	"select E'a\\'",
	`select "a`,
	"select $$a",
	"select $a$ x $A$",
	"select 1 /* open",
	"select 1; /* open",
	"select \\g",
	"select 1\x00",
	"select 'a\x00'",
	"select E'a\x00'",
	"select \"a\x00\"",
}

func TestOnePlainStatementMayBeSentAgain(t *testing.T) {
	for _, sql := range plainStatements {
		require.True(t, rerunnable(sql), "%q", sql)
	}
}

func TestAnythingElseIsNotSentAgain(t *testing.T) {
	for _, sql := range otherTexts {
		require.False(t, rerunnable(sql), "%q", sql)
	}
}

// checkSecondStatement: whatever the text, it stays refused, or becomes so, when a second statement is put to it.
func checkSecondStatement(t *testing.T, sql string) {
	t.Helper()
	if rerunnable(sql) {
		require.False(t, rerunnable(sql+"\n; delete from t"), "%q", sql)
		require.False(t, rerunnable("call p(); "+sql), "%q", sql)
		require.False(t, rerunnable("select 1; "+sql), "%q", sql)
		require.True(t, rerunnable(" /* ; */ -- ;\n"+sql), "%q", sql)
		require.True(t, rerunnable(sql+"\n-- ;"), "%q", sql)
	}
}

func FuzzRerunnableIsNeverTrueForTwoStatements(f *testing.F) {
	for _, sql := range append(append([]string(nil), plainStatements...), otherTexts...) {
		f.Add(sql)
	}
	f.Fuzz(checkSecondStatement)
}

// The fragments are all closed: however they are put together, a semicolon between two of them ends a statement.
func TestGeneratedTextsWithASecondStatementAreRefused(t *testing.T) {
	fragments := []string{
		"1", "a", ",", "+", "-", "(", ")", "'x;'", "''", "'it''s'", `'\x'`, `E'\';'`, `E'\\'`, `"a;"`, `"a"";"`, "$$;'$$", "$q$;$$\"$q$",
		"/* ;' */", "/* /* ; */ $$ */", "-- ;'\n", "$1", "U&'a'", "::text", "->", "é",
	}
	random := rand.New(rand.NewPCG(1, 2))
	some := func() string {
		var b strings.Builder
		for range random.IntN(8) {
			b.WriteString(" " + fragments[random.IntN(len(fragments))] + " ")
		}
		return b.String()
	}
	accepted := 0
	for range 20000 {
		first, second := "select "+some(), some()
		if rerunnable(first) {
			accepted++
			require.True(t, rerunnable(first+";"), "%q", first)
		}
		require.False(t, rerunnable(first+"; commit "+second), "%q %q", first, second)
		require.False(t, rerunnable(first+"; ; "+second+"x"), "%q %q", first, second)
	}
	require.Greater(t, accepted, 10000, "the fragments must mostly make statements that are accepted")
}

func TestALongTextIsReadInOnePass(t *testing.T) {
	for _, sql := range []string{
		"select " + strings.Repeat("/*", 1<<20),
		"select " + strings.Repeat("(", 1<<20),
		"select " + strings.Repeat("E'a' ", 1<<18),
		"select '" + strings.Repeat("''", 1<<20),
	} {
		_ = rerunnable(sql)
	}
	require.True(t, rerunnable("select '"+strings.Repeat("''", 1<<20)+"'"))
	require.True(t, rerunnable("select "+strings.Repeat("/*", 1<<18)+strings.Repeat("*/", 1<<18)))
}
