// Command engine runs a command with a Docker engine and a PostgreSQL image at
// hand, and sets up whichever of the two is missing:
//
//	engine go test -tags docker ./integration/docker/...
//
// The engine: the one that the docker client reaches, if it reaches one. Else,
// as root on Linux, a dockerd of its own with a data directory of its own; it
// is stopped when the command ends, and the packet filter, IP forwarding and
// bridge device that it changed are put back as they were. A missing dockerd
// is installed where apt-get exists.
//
// The image: RETRYPG_TEST_IMAGE if set, else postgres:17, present or pulled.
// Where it cannot be pulled, an image is made of the PostgreSQL that
// internal/pgtest finds on this machine and of the libraries that it loads.
//
// The command sees RETRYPG_TEST_IMAGE, and DOCKER_HOST and the TESTCONTAINERS_
// settings that an engine of our own needs. Its exit status is passed on; 125
// says that the set-up itself failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// setupFailed is the exit status when the command could not be run at all. The
// docker client uses the same number for the same case.
const setupFailed = 125

// childGrace is how long the command may take to clean up after an interrupt.
const childGrace = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
	}
	os.Exit(status)
}

// run returns the exit status of the program. Everything that it set up is
// gone when it returns.
func run(ctx context.Context, command []string) (status int, err error) {
	if len(command) == 0 {
		return setupFailed, errors.New("no command given: usage: engine COMMAND [ARGUMENT...]")
	}
	docker, err := findClient(ctx)
	if err != nil {
		return setupFailed, err
	}
	if version, err := docker.serverVersion(ctx); err == nil {
		report("using the Docker engine that is running (%s)", version)
	} else {
		daemon, err := startDaemon(ctx, docker)
		if err != nil {
			return setupFailed, err
		}
		// A failed clean-up leaves a changed packet filter behind: it must not pass as success.
		defer func() {
			if stopErr := daemon.stop(ctx); stopErr != nil {
				err = errors.Join(err, stopErr)
				if status == 0 {
					status = setupFailed
				}
			}
		}()
		docker = daemon.client()
	}
	image, err := provideImage(ctx, docker)
	if err != nil {
		return setupFailed, err
	}
	return runCommand(ctx, command, append(docker.env, "RETRYPG_TEST_IMAGE="+image))
}

// runCommand runs the user's command with env added to our own environment.
func runCommand(ctx context.Context, command, env []string) (int, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = childGrace
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return setupFailed, fmt.Errorf("interrupted while running %s: %w", command[0], context.Cause(ctx))
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode(), nil
	default:
		return setupFailed, fmt.Errorf("run %s: %w", command[0], err)
	}
}

// report prints one line about the set-up. It goes to standard error so that
// standard output is the command's alone.
func report(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "engine: "+format+"\n", args...)
}
