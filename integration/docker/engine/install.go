package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// errNoEngine says what a user has to do when nothing can be set up here.
var errNoEngine = errors.New("start a Docker engine, or set DOCKER_HOST to one, and try again")

// installEngine installs Debian's or Ubuntu's docker.io. The package starts no
// service of its own in an image whose policy-rc.d refuses that.
func installEngine(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("installing an engine needs root: %w", errNoEngine)
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("apt-get is not here to install an engine with: %w", errNoEngine)
	}
	report("installing docker.io with apt-get")
	install := func() error {
		cmd := exec.CommandContext(ctx, apt, "install", "-y", "-q", "--no-install-recommends", "docker.io", "iptables")
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		return cmd.Run()
	}
	if err = install(); err == nil {
		return nil
	}
	// A fresh image has no package lists, or lists of versions that are gone.
	update := exec.CommandContext(ctx, apt, "update", "-q")
	update.Stdout, update.Stderr = os.Stderr, os.Stderr
	if err := update.Run(); err != nil {
		return fmt.Errorf("apt-get update: %w", err)
	}
	if err := install(); err != nil {
		return fmt.Errorf("apt-get install docker.io: %w", err)
	}
	return nil
}
