package terminal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsNoTerminalIsWrittenPlainly(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	defer file.Close()
	for _, look := range []Look{LookOf(file), LookOf(&strings.Builder{})} {
		require.Equal(t, Look{}, look)
		require.Equal(t, "text", look.Bold(look.Bad(look.Dim(look.Good(look.Warning("text"))))))
		require.Equal(t, 80, look.Columns())
	}
	require.Equal(t, "\x1b[32mtext\x1b[0m", Look{Color: true}.Good("text"))
}

func TestLinesAreBrokenAtBlanks(t *testing.T) {
	require.Equal(t, []string{"one two", "three", "a-word-that-is-too-long", "x"}, Wrap(" one  two three\na-word-that-is-too-long x ", 8))
	require.Empty(t, Wrap("", 8))
}
