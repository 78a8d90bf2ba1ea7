//go:build !unix

package main

import (
	"errors"
	"os"
	"os/exec"
)

// execute runs the command as a child, because the system has no exec, and hands its exit status on.
func execute(path string, args []string) error {
	cmd := exec.Command(path, args[1:]...) //nolint:gosec // running the command of its caller is what it is for
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return &exit{status: ended.ExitCode()}
	}
	return err
}
