//go:build !linux

package pgtest

import (
	"errors"
	"os/exec"
)

func enter(*exec.Cmd, string) error {
	return errors.New("network namespaces exist on Linux only")
}
