package transport

import (
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAGuardKeepsAWriteFromWritingAnything(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	c := newConn(client, "")
	defer c.Close()
	no := errors.New("no")
	c.Guard(func() error { return no })
	n, err := c.Write([]byte("x")) // it would block
	require.Zero(t, n)
	require.ErrorIs(t, err, no)
	require.Zero(t, c.BytesWritten())
}
