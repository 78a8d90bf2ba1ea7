package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// cacheDir returns the directory for fetched servers and cluster templates. It is not made here.
func cacheDir() (string, error) {
	if dir := os.Getenv(EnvCache); dir != "" {
		abs, err := filepath.Abs(dir)
		return filepath.Join(abs, "retrypg"), err
	}
	if os.Geteuid() == 0 {
		// The server runs as another user, which cannot enter root's home directory.
		return "/var/cache/retrypg", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory, set %s: %w", EnvCache, err)
	}
	return filepath.Join(dir, "retrypg"), nil
}

// lockPoll is how often a lock held by another process is asked for: flock has no form that a context ends.
const lockPoll = 20 * time.Millisecond

// lockFile takes an exclusive lock that ends with unlock or with the process.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for {
		ok, err := tryLock(f)
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if ok {
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for another process to release %s: %w", path, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
