package retrypg

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATextThatDoesNothingButReadIsTakenForOne(t *testing.T) {
	for _, sql := range []string{
		"select 1",
		"SELECT balance FROM account WHERE id = $1",
		"select balance from account where id = $1;",
		"select(1)",
		"select a.*, b.x from a join b using (id) left join c on (c.id = a.id) where a.id in ($1, $2) and not (a.x = 'f(x)')",
		"select count(*), Coalesce(Sum(x), 0) from t group by y having (count(*) > 1)",
		"select exists (select 1 from t where id = any($1))",
		"select * from (select id from t) as s where (id, id) = row(1, 2)",
		"select x::numeric(10, 2), cast(x as varchar(3)) from t order by 1 limit (2) offset 1e3",
		"select 'for update', 'into', $$for update f(x)$$, $f$ nextval('s') $f$",
		"select 1 -- for update\n",
		"select 1 /* into x; nextval('s') */ from t",
		"select \"for\" from t",
		"values (1), (2)",
		"table t",
		"(select 1)"[1:9],
		"select 1.5, .5, 1e10, 1e-5, a[1] from t",
		"select count/* how many */(*) from t",
		"select x from t union (select y from u) except all (select 1)",
	} {
		require.True(t, pureRead(sql), sql)
	}
}

// What is repeated that is none could take a number of a sequence twice, or a lock of the session.
func TestATextThatMayDoMoreThanReadIsNotTakenForARead(t *testing.T) {
	for _, sql := range []string{
		"",
		"select",
		"insert into t values (1)",
		"update t set a = 1",
		"with x as (select 1) select * from x",
		"with x as (delete from t returning *) select * from x",
		"select 1; select 2",
		"begin",
		"lock table t",
		"show x",
		"explain select 1",
		"select nextval('s')",
		"select Current_Timestamp", // what is read again could not be the same
		"select a from t where at < localtime",
		"SELECT NextVal ('s')",
		"select nextval\n('s')",
		"select nextval\r('s')",
		"select nextval/* */('s')",
		"select nextval/* /* */ */ /**/('s')",
		"select nextval-- why\n('s')",
		"select nextval\v('s')",
		"select nextval\x01('s')",
		"select pg_catalog.nextval('s')",
		"select pg_catalog . nextval ('s')",
		"select audit.count(x) from t",
		"select audit . /* */ count (x) from t",
		`select audit."count"(x) from t`,
		`select "nextval"('s')`,
		`select "count" (1)`,
		`select U&"nextval"('s')`,
		`select U&"n\0065xtval" ('s')`,
		"select * from t where x = f (1)",
		"select * from f(1)",
		"select * from rows from (f(1))",
		"select 1 where exists (select pg_advisory_lock(1))",
		"select count(nextval('s'))",
		"select 1+nextval('s')",
		"select -f(1)",
		"select 1=1and f(1)",
		"select 'x'f(1)",
		"select $1f(1)",
		"select 1f(1)",
		"select by(1)",
		"select over(1)",
		"select filter(1)",
		"select partition(1)",
		"select * from t for update",
		"select * from t FoR/**/update",
		"select * from t where id = 1for update",
		"select * from t where id = 1 for share",
		"table t for key share",
		"select 1 into x",
		"select 1into x",
		"select * from t tablesample system (10)",
		"values (nextval('s'))",
		"select x::mytype(3)",
		"select xé(1)",
		"select é (1)",
		`select '\'' , f(1) --'`,
		"select f$x(1)",
		"select a operator(pg_catalog.+) b",
		"table",
		"values",
	} {
		require.False(t, pureRead(sql), sql)
	}
}

// FuzzPureRead: whatever stands before, and between name and parenthesis, a call is found.
func FuzzPureRead(f *testing.F) {
	for _, sql := range append(plainStatements, otherTexts...) {
		f.Add(strings.TrimPrefix(sql, "select "), " ")
	}
	for _, blank := range []string{"", " ", "\n", "/* */", "/* /* */ */", "-- x\n", "\v", "--x\r\t", "/*(*/"} {
		f.Add("1", blank)
		f.Add("'a', \"b\", $$c$$, E'd\\''", blank)
	}
	f.Fuzz(func(t *testing.T, before, between string) {
		if pureRead(before) {
			require.True(t, rerunnable(before))
		}
		gap := sqlText{s: between}
		if !rerunnable("select "+before) || !gap.skipBlank() || gap.i < len(between) || strings.Contains(between, "--") && !strings.HasSuffix(between, "\n") {
			return
		}
		require.False(t, pureRead("select "+before+"\n, nextval"+between+"('s')"))
		require.False(t, pureRead("select "+before+"\n, x."+between+"count(1)"))
		require.False(t, pureRead("select "+before+"\n, \"count\""+between+"(1)"))
		require.False(t, pureRead("select "+before+"\n "+between+"FOR UPDATE"))
	})
}
