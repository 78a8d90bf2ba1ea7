package outcome

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATableNeedsASchemaAndIsQuoted(t *testing.T) {
	for s, want := range map[string]string{
		"public.retrypg_ledger": `"public"."retrypg_ledger"`,
		"App.Commits of x":      `"App"."Commits of x"`,
	} {
		table, ok := ParseTable(s)
		require.True(t, ok, s)
		require.Equal(t, want, table.String())
		require.Contains(t, table.Create(), "create table if not exists "+want)
	}
	for _, s := range []string{
		"", "ledger", ".ledger", "public.", "a.b.c", ` public.ledger`, `public.ledger `, `pub"lic.ledger`, "public.\x00",
		"public." + strings.Repeat("x", 64),
	} {
		_, ok := ParseTable(s)
		require.False(t, ok, "%q", s)
	}
}

func TestATokenSurvivesItsText(t *testing.T) {
	table, _ := ParseTable("public.retrypg_ledger")
	token := Token{Table: table, ID: "01234567-89ab-4cde-8f01-23456789abcd", Begun: 1795499927653514, Keep: time.Hour, Database: "a.b"}
	parsed, ok := ParseToken(token.String())
	require.True(t, ok)
	require.Equal(t, token, parsed)
}

func FuzzParseTokenLetsNothingThroughThatLeavesItsQuotes(f *testing.F) {
	f.Add("public.retrypg_ledger.1.2.01234567-89ab-4cde-8f01-23456789abcd.app")
	f.Add("public.l\".1.'); drop table x; --")
	f.Fuzz(func(t *testing.T, s string) {
		token, ok := ParseToken(s)
		if !ok {
			return
		}
		require.NotContains(t, token.ID, "'")
		require.Len(t, token.ID, 36)
		require.Equal(t, 4, strings.Count(token.Table.String(), `"`))
		again, ok := ParseToken(token.String())
		require.True(t, ok)
		require.Equal(t, token, again)
	})
}

func FuzzIdentityTakesAnyRow(f *testing.F) {
	f.Add("42", "f", "00000001", "100", "", "50", "7")
	f.Add("", "t", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h string) {
		row := [][]byte{[]byte(a), []byte(b), []byte(c), []byte(d), []byte(e), []byte(g), []byte(h)}
		for n := range len(row) + 1 {
			var id Identity
			if err := id.scan(row[:n]); err == nil {
				require.Equal(t, identityWidth, n)
				require.True(t, id.Known())
				require.NotEmpty(t, id.Epoch.Started)
				require.LessOrEqual(t, len(id.System), maxText)
			}
			var b Begun
			_ = b.scan(row[:n])
		}
	})
}

func TestOldTokensAreCleanedUpInBoundedPieces(t *testing.T) {
	table, _ := ParseTable("public.retrypg_ledger")
	sql := table.CleanUp(time.Hour, 2000, time.Second)
	require.Contains(t, sql, "statement_timeout = 1000;")
	require.Contains(t, sql, "- 3600000000 ")
	require.Contains(t, sql, "limit 2000 for update skip locked")
}
