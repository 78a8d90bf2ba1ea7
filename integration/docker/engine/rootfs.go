package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// shellTools are the programs beside PostgreSQL's: what the entry point and
// pg_ctl run, and what testcontainers runs in a container to see whether a
// port is open there.
var shellTools = []string{"sh", "cat", "rm", "awk", "grep"}

// serverTools are the programs of PostgreSQL that the entry point runs.
var serverTools = []string{"postgres", "initdb", "pg_ctl"}

// zoneDir is where a Debian build of PostgreSQL looks time zones up.
const zoneDir = "/usr/share/zoneinfo"

// rootfs says which file of this machine stands where in the image.
type rootfs struct {
	files map[string]string // path in the image -> file here; what is a link here is copied as the file it names
	links map[string]string // path in the image -> target of a symbolic link
}

// collect lists the files that a container needs to run the installation.
func collect(ctx context.Context, inst *pgtest.Installation) (*rootfs, error) {
	r := &rootfs{files: map[string]string{}, links: map[string]string{}}
	var programs []string
	for _, name := range serverTools {
		path := filepath.Join(inst.BinDir, name)
		programs = append(programs, path)
		r.add(path, path)
	}
	for _, name := range shellTools {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("find a program for the image: %w", err)
		}
		programs = append(programs, path)
		r.add(filepath.Join("/usr/bin", name), path)
	}
	r.links["/bin"] = "usr/bin"

	modules, err := findDir(inst, "plpgsql.so", "lib", "lib/postgresql")
	if err != nil {
		return nil, err
	}
	share, err := findDir(inst, "postgres.bki", "share", "share/postgresql",
		filepath.Join("../../../share/postgresql", fmt.Sprint(inst.Major)))
	if err != nil {
		return nil, err
	}
	if err := r.addTree(share); err != nil {
		return nil, err
	}
	if err := r.addTree(modules); err != nil {
		return nil, err
	}
	if err := r.addTree(zoneDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for path := range r.files {
		if filepath.Dir(path) == modules && strings.HasSuffix(path, ".so") {
			programs = append(programs, path)
		}
	}
	libraries, err := sharedLibraries(ctx, programs)
	if err != nil {
		return nil, err
	}
	for _, path := range libraries {
		r.add(path, path)
	}
	return r, nil
}

// findDir returns the directory among the candidates, relative to the
// installation's prefix, that holds the file. PostgreSQL is looked up this way
// itself: its directories keep their places relative to the programs.
func findDir(inst *pgtest.Installation, file string, candidates ...string) (string, error) {
	prefix := filepath.Dir(inst.BinDir)
	for _, candidate := range candidates {
		dir := filepath.Join(prefix, candidate)
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no directory near %s holds %s; set %s to an image instead", inst.BinDir, file, imageVariable)
}

// add puts a file into the image. A directory that is a link on this machine
// (/lib on a machine with a merged /usr) becomes a link in the image too.
func (r *rootfs) add(path, file string) {
	for dir := filepath.Dir(path); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, known := r.links[dir]; known {
			continue
		}
		if target, err := os.Readlink(dir); err == nil {
			r.links[dir] = target
		}
	}
	r.files[r.resolve(path)] = file
}

// resolve replaces the linked directories of a path in the image by what they
// name: a tar entry below a link is not portable.
func (r *rootfs) resolve(path string) string {
	for link, target := range r.links {
		rest, below := strings.CutPrefix(path, link+"/")
		if !below {
			continue
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		return r.resolve(filepath.Join(target, rest))
	}
	return path
}

// addTree puts a directory with all its files into the image, save what only
// the just-in-time compiler needs: it is far larger than all the rest, and the
// server runs without it.
func (r *rootfs) addTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("read the directory %s: %w", dir, err)
		case entry.IsDir() && entry.Name() == "bitcode":
			return fs.SkipDir
		case entry.IsDir() || strings.HasPrefix(entry.Name(), "llvmjit"):
			return nil
		}
		// A link that leads nowhere or to a directory is left out: nobody reads it.
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			r.add(path, path)
		}
		return nil
	})
}

// sharedLibraries returns the paths of all libraries that the programs load,
// the loader itself included. A library that is missing here is left out: the
// modules of unused languages may lack theirs, and a server that lacks one
// fails at its first start.
func sharedLibraries(ctx context.Context, programs []string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "ldd", programs...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // ldd's status is 1 when one of many is static
		return nil, fmt.Errorf("list shared libraries: %w", err)
	}
	seen := map[string]bool{}
	var paths []string
	for line := range strings.Lines(string(out)) {
		// "name => path (address)", "path (address)" for the loader.
		text, _, hasAddress := strings.Cut(strings.TrimSpace(line), " (0x")
		if _, path, found := strings.Cut(text, " => "); found {
			text = path
		}
		if !hasAddress || !filepath.IsAbs(text) {
			continue
		}
		if path := filepath.Clean(text); !seen[path] {
			seen[path] = true
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("ldd names no shared libraries of %s", programs[0])
	}
	return paths, nil
}
