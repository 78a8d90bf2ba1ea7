package terminal

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNumbersAreGroupedByThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567"} {
		require.Equal(t, want, Grouped(n))
	}
}
