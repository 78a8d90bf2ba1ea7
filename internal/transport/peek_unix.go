//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package transport

import (
	"io"
	"os"
	"syscall"
)

const hasPeek = true

// peekFD is the body of Peek. It leaves its result in peeked and peekErr.
func (c *Conn) peekFD(fd uintptr) {
	c.peekErr = nil
	for {
		n, errno := recv(int(fd), c.peekBuf[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch errno {
		case 0:
			if n > 0 {
				c.peeked = Pending
				return
			}
			c.peeked, c.peekErr = Dead, io.EOF
			return
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.peeked = Alive
		case syscall.ENOTSOCK, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EPERM, syscall.ENOMEM, syscall.ENOBUFS:
			// Says something about this host or this descriptor, nothing about the peer.
			c.peeked = Unknown
		default:
			c.peeked, c.peekErr = Dead, os.NewSyscallError("recvfrom", errno)
		}
		return
	}
}
