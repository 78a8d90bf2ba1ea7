package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
)

// runCommand runs the command that follows the wait. Where it succeeds it does not return on systems with exec.
func (w *waiting) runCommand() error {
	path, err := exec.LookPath(w.command[0])
	if err == nil {
		err = w.execute(path, w.command)
	}
	var e *exit
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return err
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return &exit{exitNotFound, fmt.Errorf("run the command: %w", err)}
	}
	return &exit{exitNotExecutable, fmt.Errorf("run the command: %w", err)}
}
