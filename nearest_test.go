package retrypg

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDistanceCountsSlips(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abc", 0},
		{"abc", "acb", 1},
		{"abc", "ab", 1},
		{"abc", "abxc", 1},
		{"abc", "xbc", 1},
		{"ca", "abc", 3},
		{"kitten", "sitting", 3},
	} {
		require.Equal(t, tc.want, distance(tc.a, tc.b), "%s %s", tc.a, tc.b)
		require.Equal(t, tc.want, distance(tc.b, tc.a), "%s %s", tc.b, tc.a)
	}
}
