//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package pgtest

import (
	"errors"
	"os"
	"os/exec"
)

// Clusters need Unix signals, users and file locks. Elsewhere the package compiles, the proxy works, and Find says no.
const supported = false

var errUnsupported = errors.New("throwaway clusters are not supported on this operating system")

type serverUser struct{ uid int }

func asServer() (serverUser, error) { return serverUser{}, errUnsupported }

var sigFast, sigImmediate, sigKill, sigFreeze, sigThaw os.Signal = os.Kill, os.Kill, os.Kill, os.Kill, os.Kill

func detach(*exec.Cmd) error         { return errUnsupported }
func ownGroup(*exec.Cmd)             {}
func giveAway(string) error          { return nil }
func reachable(string) error         { return nil }
func tryLock(*os.File) (bool, error) { return false, errUnsupported }
func signalPID(int, os.Signal) error { return errUnsupported }
func children(int) ([]int, error)    { return nil, errUnsupported }
