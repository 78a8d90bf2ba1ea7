package retrypg

import "syscall"

// errnoOf says what err means on a socket if it is an error number of the operating system. The numbers are those of
// Windows Sockets, from winerror.h; package syscall names only some of them.
func errnoOf(err error) (reason string, kind errnoKind) {
	errno, ok := err.(syscall.Errno)
	if !ok {
		return "", errnoNone
	}
	switch errno {
	case 10061: // WSAECONNREFUSED
		return "connection refused", errnoNetwork
	case 10053, 10054: // WSAECONNABORTED, WSAECONNRESET
		return "connection reset", errnoNetwork
	case 10060: // WSAETIMEDOUT
		return "connection timed out", errnoNetwork
	case 10050, 10051, 10065: // WSAENETDOWN, WSAENETUNREACH, WSAEHOSTUNREACH
		return "host unreachable", errnoNetwork
	case 2: // ERROR_FILE_NOT_FOUND
		return "", errnoNoFile
	case 10013: // WSAEACCES
		return "permission denied", errnoHopeless
	case 10022, 10047: // WSAEINVAL, WSAEAFNOSUPPORT
		return "invalid address", errnoHopeless
	}
	return "", errnoNone
}
