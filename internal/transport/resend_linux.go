package transport

import (
	"os"
	"syscall"
	"time"
)

const (
	// tcpRTOMax is TCP_RTO_MAX_MS of include/uapi/linux/tcp.h, Linux 6.15 and later; package syscall has no name for it.
	tcpRTOMax = 44
	// maxResend caps the time after which unacknowledged data is sent again. Linux doubles it each time, up to 120 s, so
	// that after an outage of 10 s a connection may be of no use for another 6 s; a second is the shortest that it allows
	// (TCP_RTO_MAX_MIN_SEC of include/net/tcp.h).
	maxResend = time.Second
)

// setMaxResend sets the option on a socket, connected or not.
func setMaxResend(fd uintptr) error {
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMax, int(maxResend/time.Millisecond)))
}
