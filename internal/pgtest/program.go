package pgtest

import "os/exec"

// What tests need that run other programs beside a server, and servers under a program that manages them.

// FreePort returns a TCP port on 127.0.0.1 that nothing listened on a moment ago, outside of the ranges from which kernels
// give ports to outgoing connections.
func FreePort() (int, error) { return freePort() }

// AsServer makes cmd run as the user that servers run as, in a process group of its own.
func AsServer(cmd *exec.Cmd) error { return detach(cmd) }

// GiveToServer hands a file or directory to the user that servers run as.
func GiveToServer(path string) error { return giveAway(path) }
