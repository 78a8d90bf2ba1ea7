package pgtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// initdbArgs make every cluster alike. Checksums are on, as PostgreSQL 18 does by default.
var initdbArgs = []string{
	"--data-checksums", "--no-sync", "--auth=trust", "--username=postgres",
	"--encoding=UTF8", "--locale=C", "--no-instructions",
}

// create fills the data directory with a new cluster: a copy of a template made once for each installation, with a
// system identifier of its own, because that is what tells clusters apart. Where no template can be kept, or the copy
// cannot be given a new identity, initdb makes the cluster itself.
func (c *Cluster) create(ctx context.Context) error {
	copied, err := c.copyTemplate(ctx)
	if err != nil {
		return err
	}
	if !copied {
		if err := os.RemoveAll(c.DataDir()); err != nil {
			return err
		}
		if err := runInitdb(ctx, c.inst, c.DataDir()); err != nil {
			return err
		}
	}
	return c.configure()
}

func (c *Cluster) copyTemplate(ctx context.Context) (bool, error) {
	template, err := templateFor(ctx, c.inst)
	if err != nil {
		if ctx.Err() != nil {
			return false, err
		}
		return false, nil // the cache cannot be written: a reason to be slow, not to fail
	}
	if err := copyTree(ctx, template, c.DataDir(), nil); err != nil {
		return false, err
	}
	return newIdentity(c.DataDir()) == nil, nil
}

// templateFor returns the template's directory and makes it first if need be. Processes that need the same one at the
// same time wait for one of them.
func templateFor(ctx context.Context, inst *Installation) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	u, err := asServer()
	if err != nil {
		return "", err
	}
	recipe := fmt.Sprintf("%s %s %d %q", inst.BinDir, inst.Version, u.uid, initdbArgs)
	sum := sha256.Sum256([]byte(recipe))
	dir := filepath.Join(cache, "template", fmt.Sprintf("%s-%x", inst.Version, sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	if err := reachable(parent); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(parent, "new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := errors.Join(os.Chmod(work, 0o755), giveAway(work)); err != nil {
		return "", err
	}
	data := filepath.Join(work, "data")
	if err := runInitdb(ctx, inst, data); err != nil {
		return "", err
	}
	return dir, os.Rename(data, dir)
}

func runInitdb(ctx context.Context, inst *Installation, dataDir string) error {
	cmd := exec.CommandContext(ctx, inst.program("initdb"), slices.Concat(initdbArgs, []string{"-D", dataDir})...)
	if err := detach(cmd); err != nil {
		return err
	}
	cmd.Dir = filepath.Dir(dataDir)
	cmd.Env = serverEnv()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// serverEnv is our environment without what would change a server's behaviour or the language of its messages.
func serverEnv() []string {
	var env []string
	for _, entry := range os.Environ() {
		if strings.HasPrefix(entry, "PG") || strings.HasPrefix(entry, "LC_") || strings.HasPrefix(entry, "LANG") {
			continue
		}
		env = append(env, entry)
	}
	return append(env, "LC_ALL=C")
}

// copyTree copies a data directory and hands the copy to the server's user. skip, unless nil, is asked with each path
// relative to from: true leaves it out, with all below it. Files that vanish while a running server's directory is
// copied are left out too.
func copyTree(ctx context.Context, from, to string, skip func(path string, dir bool) bool) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != from {
				return nil
			}
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if skip != nil && skip(filepath.ToSlash(relative), entry.IsDir()) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir():
			err = os.MkdirAll(target, 0o700)
		case entry.Type().IsRegular():
			err = copyFile(path, target)
		default:
			return fmt.Errorf("copy %s: not a file or directory (tablespaces are not supported)", path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return giveAway(target)
	})
}

// copyFile lets the kernel share or copy the blocks where it can: io.Copy between two files asks for that.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
