//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package transport

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWithoutPeekAnOpenConnectionIsUnknown(t *testing.T) {
	require.False(t, Supported().Peek)
	c, _ := pair(t, "tcp")
	require.Equal(t, Unknown, c.Peek())
}
