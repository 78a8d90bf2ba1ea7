//go:build (linux && (386 || s390x)) || darwin || freebsd || netbsd || openbsd || dragonfly

package transport

import (
	"errors"
	"syscall"
)

// recv is recvfrom without the peer's address, which package syscall cannot leave out here: on a Unix socket it costs
// an allocation.
func recv(fd int, p []byte, flags int) (int, syscall.Errno) {
	n, _, err := syscall.Recvfrom(fd, p, flags)
	var errno syscall.Errno
	errors.As(err, &errno) // stays 0 on success
	return n, errno
}
