//go:build unix

package main

import (
	"os"
	"syscall"
)

// execute puts the command in the place of this process, so that it gets its signals and its parent. It returns only
// if that fails.
func execute(path string, args []string) error {
	return syscall.Exec(path, args, os.Environ())
}
