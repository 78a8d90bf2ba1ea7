package pgtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken below the ranges from which kernels give ports to outgoing connections (Linux 32768-60999, macOS and
// the BSDs 49152-65535): a port kept by a stopped server must not be taken by a client in the meantime.
const (
	portFirst = 15000
	portLast  = 31999
)

// freePort returns a TCP port on 127.0.0.1 that nothing listened on a moment ago.
func freePort() (int, error) {
	ln, err := listenFree()
	if err != nil {
		return 0, err
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// listenFree listens on a free port of 127.0.0.1, taken at random so that processes do not meet.
func listenFree() (*net.TCPListener, error) {
	var errs []error
	for range 20 {
		port := portFirst + rand.IntN(portLast-portFirst+1)
		ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", portText(port)))
		if err == nil {
			return ln.(*net.TCPListener), nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("find a free port on 127.0.0.1: %w", errors.Join(errs...))
}

func portText(port int) string { return strconv.Itoa(port) }
