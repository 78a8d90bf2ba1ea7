package classify

import (
	"cmp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/retrypg/retrypg/internal/sqlstate"
)

// maxNearest is how many conditions are suggested.
const maxNearest = 3

// nearestConditions returns the conditions that text may have meant: those that begin with it, have it in them, or are
// a few slips away.
func nearestConditions(text string) []string {
	type candidate struct {
		name  string
		slips int
	}
	name := conditionName(text)
	if name == "" || len(name) > 64 {
		return nil
	}
	var found []candidate
	for _, row := range sqlstate.Entries() {
		c := candidate{row.Name, levenshtein.ComputeDistance(name, row.Name)}
		if len(name) > 3 && strings.Contains(row.Name, name) {
			c.slips = 0
		}
		if c.slips <= max(2, len(name)/4) && !slices.ContainsFunc(found, func(o candidate) bool { return o.name == row.Name }) {
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.slips, b.slips) })
	var names []string
	for _, c := range found[:min(len(found), maxNearest)] {
		names = append(names, c.name)
	}
	return names
}
