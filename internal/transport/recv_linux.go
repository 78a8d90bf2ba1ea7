//go:build linux && !386 && !s390x

package transport

import (
	"syscall"
	"unsafe"
)

// recv is recvfrom without the peer's address: syscall.Recvfrom allocates one with each call on a Unix socket. The two
// architectures left out have no such system call in package syscall. p must not be empty. The errno is 0 on
// success.
func recv(fd int, p []byte, flags int) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM,
		uintptr(fd), uintptr(unsafe.Pointer(&p[0])), //nolint:gosec // the one form in which a system call takes a buffer
		uintptr(len(p)), uintptr(flags), 0, 0)
	return int(n), errno
}
