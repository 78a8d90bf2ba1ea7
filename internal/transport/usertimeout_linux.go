package transport

import (
	"errors"
	"math"
	"os"
	"syscall"
	"time"
)

const hasUserTimeout = true

// tcpUserTimeout is TCP_USER_TIMEOUT of include/uapi/linux/tcp.h, in milliseconds; package syscall has no name for it.
const tcpUserTimeout = 0x12

// setUserTimeout sets the option on a socket, connected or not. d must be positive.
func setUserTimeout(fd uintptr, d time.Duration) error {
	ms := min((int64(d)-1)/int64(time.Millisecond)+1, math.MaxInt32)
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(ms)))
}

// notKnown is true for the answer of a kernel, or of a sandbox in its place, that does not have an option.
func notKnown(err error) bool {
	return errors.Is(err, syscall.ENOPROTOOPT) || errors.Is(err, errors.ErrUnsupported)
}
