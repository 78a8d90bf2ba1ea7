package doctor

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// The servers of the example in the documents, with settings as Debian's packages have them, but for statement_timeout.
func TestTheExampleInTheDocumentsIsWhatIsPrinted(t *testing.T) {
	server := func(standby bool, took time.Duration) *facts {
		f := sound()
		f.version, f.number, f.standby, f.connected, f.connections.used = "PostgreSQL 15.18 on x86_64", "15.18 (Debian 15.18-1)", standby, took, 1
		f.settings["statement_timeout"] = setting{"500", "ms", "configuration file"}
		f.settings["tcp_keepalives_idle"] = setting{"7200", "s", "default"}
		f.settings["tcp_keepalives_interval"] = setting{"75", "s", "default"}
		f.settings["tcp_keepalives_count"] = setting{"9", "", "default"}
		return f
	}
	r := judged(t, "postgres://app:secret@db1,db2/shop?sslmode=verify-full", server(false, 13*time.Millisecond), server(true, 34*time.Millisecond))
	var b strings.Builder
	require.NoError(t, r.Write(&b, terminal.Look{}))
	hosts, dsn, found := strings.Cut(b.String(), "DSN\n")
	require.True(t, found)
	first, _, _ := strings.Cut(hosts, "\n\n")
	for file, part := range map[string]string{"docs/tool.md": first, "README.md": "DSN\n" + dsn} {
		text, err := os.ReadFile("../../../../" + file)
		require.NoError(t, err)
		require.Contains(t, string(text), strings.TrimSuffix(part, "\n")+"\n```\n", file)
	}
}
