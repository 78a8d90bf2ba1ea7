//go:build linux && netns

package net_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// poll is how often the kernel is asked, which sends no event.
const poll = 5 * time.Millisecond

// socket is a TCP socket of this namespace, as the kernel has it: also one that the program has closed already.
type socket struct {
	state     string // hexadecimal, as in include/net/tcp_states.h
	retransms int    // times that what was sent last was sent again
}

// Of tcp_states.h. A socket in one of these has nothing more to bring to the server.
const (
	synSent  = "02"
	timeWait = "06"
	closed   = "07"
)

const established = "01"

// sockets returns those that lead to a port of the server.
func sockets(port int) ([]socket, error) {
	text, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		return nil, err
	}
	var found []socket
	for line := range strings.Lines(string(text)) {
		// sl local remote st tx:rx tr:when retrnsmt ...
		fields := strings.Fields(line)
		if len(fields) < 7 || !strings.HasSuffix(fields[2], fmt.Sprintf(":%04X", port)) {
			continue
		}
		n, err := strconv.ParseInt(fields[6], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		found = append(found, socket{state: fields[3], retransms: int(n)})
	}
	return found, nil
}

// lives reports whether something that was sent on it may still reach the server.
func (s socket) lives() bool { return s.state != synSent && s.state != timeWait && s.state != closed }

// count returns how many of the sockets that lead to a port satisfy a condition.
func count(t *testing.T, port int, condition func(socket) bool) (n int) {
	t.Helper()
	all, err := sockets(port)
	require.NoError(t, err)
	for _, s := range all {
		if condition(s) {
			n++
		}
	}
	return n
}

// until waits until a condition is true.
func until(ctx context.Context, t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			require.FailNow(t, "not in time", "%s: %v", what, context.Cause(ctx))
		}
	}
}

// openFiles returns what the open file descriptors of this process are.
func openFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var files []string
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil { // else the one that was read
			files = append(files, target)
		}
	}
	return files
}

// checkFiles fails the test if it ends, with everything that it opened later, with more file descriptors than there are now.
func checkFiles(t *testing.T) {
	t.Helper()
	before := openFiles(t)
	t.Cleanup(func() {
		began := time.Now()
		after := openFiles(t)
		for len(after) > len(before) && time.Since(began) < limit {
			time.Sleep(poll)
			after = openFiles(t)
		}
		require.LessOrEqual(t, len(after), len(before), "file descriptors before: %v\nafter: %v", before, after)
	})
}
