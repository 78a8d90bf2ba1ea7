package pgtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func fakeInstallation(t *testing.T, version string) string {
	t.Helper()
	dir := publicDir(t)
	for name, script := range map[string]string{
		"postgres": "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + " (Debian 1)'\n", "initdb": "#!/bin/sh\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	return dir
}

func TestFindTakesTheDirectoryItIsTold(t *testing.T) {
	dir := fakeInstallation(t, "17.10")
	t.Setenv(EnvBin, dir)
	t.Setenv(EnvVersion, "")
	inst, err := Find(t.Context())
	require.NoError(t, err)
	require.Equal(t, &Installation{BinDir: dir, Version: "17.10", Major: 17, Source: EnvBin}, inst)
	t.Setenv(EnvVersion, "17.4")
	_, err = Find(t.Context())
	require.NoError(t, err, "only the major version counts")
}

func TestFindSaysWhyAndWhatToDo(t *testing.T) {
	for _, tc := range []struct{ name, bin, version, want string }{
		{"empty directory", publicDir(t), "", "there is no initdb"},
		{"other version", fakeInstallation(t, "16.2"), "17", "it is version 16.2"},
		{"too old", fakeInstallation(t, "12.9"), "", "too old"},
		{"no version", fakeInstallation(t, "x"), "", "printed"},
		{"unknown version", "", "98", "no package is known for PostgreSQL 98"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(EnvBin, tc.bin)
			t.Setenv(EnvVersion, tc.version)
			_, err := Find(t.Context())
			var missing *NotFoundError
			require.ErrorAs(t, err, &missing)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "apt-get install postgresql")
		})
	}
	t.Setenv(EnvVersion, "new")
	_, err := Find(t.Context())
	require.ErrorContains(t, err, "RETRYPG_PG_VERSION")
}

func TestVersionsCompareAsNumbers(t *testing.T) {
	ordered := []string{"9.6", "15.2", "15.18", "18beta1", "18.0", "18.4"}
	for i := range ordered {
		for j := range ordered {
			require.Equal(t, i > j, newer(ordered[i], ordered[j]), "%s > %s", ordered[i], ordered[j])
		}
	}
}

func TestProgramsBehindAClosedDirectoryAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root runs the server as another user; nothing can be closed to it here")
		return
	}
	dir := fakeInstallation(t, "17.1")
	require.NoError(t, os.Chmod(dir, 0o700))
	_, err := inspect(t.Context(), dir, "test", 0)
	require.ErrorContains(t, err, "cannot enter "+dir)
}
