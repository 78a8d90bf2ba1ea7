//go:build observability

package observability_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// The script of the container, with programs that are installed here. What it does as root is left out where the tests
// run as somebody else.
func TestTheStandbyOfTheComposeFileFollowsItsPrimaryAndIsClonedAnewAtEachStart(t *testing.T) {
	primary := pgt.New(t, pgtest.Options{HBA: []string{"host replication all 127.0.0.1/32 trust"}})
	programs := primary.Installation().BinDir
	_, err := os.Stat(filepath.Join(programs, "pg_basebackup"))
	require.NoError(t, err, "servers that were fetched do not have it: install the package postgresql")

	dir, err := os.MkdirTemp("", "retrypg-standby-") //nolint:usetesting // t.TempDir is closed to others
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755)) // the server's user must enter it
	script := filepath.Join(dir, "standby.sh")
	text, err := os.ReadFile(filepath.Join(root, "deploy/postgres/standby.sh"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(script, text, 0o755))
	host, port, err := net.SplitHostPort(primary.Addr())
	require.NoError(t, err)
	_, own, err := net.SplitHostPort(freeAddr(t))
	require.NoError(t, err)
	data := filepath.Join(dir, "data")
	require.NoError(t, os.Mkdir(data, 0o700))
	require.NoError(t, pgtest.GiveToServer(data))
	env := []string{
		"PATH=" + programs + ":" + os.Getenv("PATH"), "PGDATA=" + data,
		"PRIMARY=host=" + host + " port=" + port + " user=postgres",
	}
	for range 2 {
		standby := start(t, env, "bash", script, "-p", own, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
		standby.says(t, "ready to accept read-only connections")
		require.NoError(t, primary.WaitStreaming(t.Context(), "standby"))
		standby.stop(t)
		require.False(t, strings.Contains(standby.stderr.String(), "cannot be cloned yet"), standby.stderr)
	}
}
