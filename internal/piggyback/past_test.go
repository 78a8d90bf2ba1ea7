package piggyback

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsWrittenPastABeginThatWaitsIsRefused(t *testing.T) {
	t.Parallel()
	c := New(&bytes.Buffer{}, &bytes.Buffer{})
	require.NoError(t, c.Past())
	c.Begin([]byte("begin"), false)
	require.ErrorIs(t, c.Past(), errPast)
	c.Reset()
	require.NoError(t, c.Past())
	c.Begin([]byte("begin"), false)
	_, err := c.Write([]byte{msgTerminate, 0, 0, 0, 4})
	require.NoError(t, err)
	require.NoError(t, c.Past(), "the connection may be closed")
}
