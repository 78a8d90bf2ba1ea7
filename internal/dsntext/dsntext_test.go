package dsntext

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPairsAreReadByTheRulesOfLibpq(t *testing.T) {
	for dsn, want := range map[string][]Pair{
		"":                             nil,
		"host":                         nil,
		"host=a port = 5432":           {{"host", "a"}, {"port", "5432"}},
		`password='it\'s' user=a\ b`:   {{"password", "it's"}, {"user", "a b"}},
		"options='-c a=b'\thost=\"x\"": {{"options", "-c a=b"}, {"host", `"x"`}},
		"host=a host=b":                {{"host", "a"}, {"host", "b"}},
		`password=ends\`:               {{"password", "ends"}},
		"password='open":               {{"password", "open"}},
	} {
		require.Equal(t, want, Keywords(dsn), "%q", dsn)
	}
}

func TestPlusStaysAndWhatCannotBeDecodedStays(t *testing.T) {
	for text, want := range map[string]string{"a%20b": "a b", " a+b ": "a+b", "100%": "100%", "%2F": "/"} {
		require.Equal(t, want, Unescaped(text))
	}
}
