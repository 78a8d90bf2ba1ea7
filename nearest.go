package retrypg

import "math"

// maxCompared bounds what is compared in bytes: a longer text is no slip of the keyboard.
const maxCompared = 64

// nearest returns the candidate that the fewest slips lead to from text, the first of equals, and how many they are.
// Without candidates they are math.MaxInt.
func nearest(text string, candidates []string) (best string, slips int) {
	slips = math.MaxInt
	text = text[:min(len(text), maxCompared)]
	for _, c := range candidates {
		if d := distance(text, c); d < slips {
			best, slips = c, d
		}
	}
	return best, slips
}

// distance counts the slips that make b of a: a byte left out, put in, changed, or swapped with its neighbour
// (Damerau-Levenshtein, each part touched once).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
