//go:build !windows

package retrypg

import "syscall"

// errnoOf says what err means on a socket if it is an error number of the operating system.
func errnoOf(err error) (reason string, kind errnoKind) {
	errno, ok := err.(syscall.Errno)
	if !ok {
		return "", errnoNone
	}
	switch errno {
	case syscall.ECONNREFUSED:
		return "connection refused", errnoNetwork
	case syscall.ECONNRESET, syscall.ECONNABORTED:
		return "connection reset", errnoNetwork
	case syscall.EPIPE:
		return "broken pipe", errnoNetwork
	case syscall.ETIMEDOUT:
		return "connection timed out", errnoNetwork
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN:
		return "host unreachable", errnoNetwork
	case syscall.ENOENT:
		return "", errnoNoFile
	case syscall.EACCES, syscall.EPERM:
		return "permission denied", errnoHopeless
	case syscall.EAFNOSUPPORT, syscall.EINVAL, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.ENOTSOCK:
		return "invalid address", errnoHopeless
	}
	return "", errnoNone
}
