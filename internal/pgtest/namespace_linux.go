package pgtest

import (
	"fmt"
	"os/exec"
	"strconv"
)

// enter makes cmd, which detach has prepared, run in the network namespace of a file. The program of util-linux enters it,
// which needs root, becomes the server's user, and replaces itself by cmd, so that the process id is the server's.
func enter(cmd *exec.Cmd, namespace string) error {
	program, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("run a server in a network namespace: %w (install util-linux)", err)
	}
	args := []string{program, "--net=" + namespace}
	if user := cmd.SysProcAttr.Credential; user != nil {
		args = append(args, "--setgid="+strconv.Itoa(int(user.Gid)), "--setuid="+strconv.Itoa(int(user.Uid)))
		cmd.SysProcAttr.Credential = nil
	}
	cmd.Args = append(append(args, "--", cmd.Path), cmd.Args[1:]...)
	cmd.Path = program
	return nil
}
