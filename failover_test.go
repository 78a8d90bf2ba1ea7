package retrypg

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/outcome"
)

func TestAnotherTimelineIsAFailoverAndAnotherAddressOrClusterWhereThereIsOnePrimary(t *testing.T) {
	type met struct {
		addr     string
		system   string
		timeline uint32
		changed  bool
	}
	for name, tt := range map[string]struct {
		any      bool // any server is good, or they are taken at random
		sequence []met
	}{
		"the first one is no news":               {sequence: []met{{"a:1", "s", 1, false}, {"a:1", "s", 1, false}}},
		"promoted":                               {sequence: []met{{"a:1", "s", 1, false}, {"b:1", "s", 2, true}, {"b:1", "s", 2, false}}},
		"promoted behind a proxy":                {any: true, sequence: []met{{"vip:1", "s", 4, false}, {"vip:1", "s", 5, true}}},
		"two addresses of one server":            {sequence: []met{{"a:1", "s", 3, false}, {"b:1", "s", 3, false}, {"a:1", "s", 3, false}}},
		"an old primary that came back":          {sequence: []met{{"a:1", "s", 1, false}, {"b:1", "s", 2, true}, {"a:1", "s", 1, false}, {"b:1", "s", 2, false}}},
		"back again":                             {sequence: []met{{"a:1", "s", 1, false}, {"b:1", "s", 2, true}, {"a:1", "s", 3, true}}},
		"a new cluster in its place":             {sequence: []met{{"a:1", "s", 7, false}, {"a:1", "new", 1, true}, {"b:1", "new", 2, true}}},
		"two clusters, any of which is good":     {any: true, sequence: []met{{"a:1", "s", 7, false}, {"b:1", "t", 1, false}, {"a:1", "s", 7, false}}},
		"who does not say":                       {sequence: []met{{"a:1", "", 0, false}, {"b:1", "", 0, true}, {"b:1", "", 0, false}}},
		"who does not say, any of which is good": {any: true, sequence: []met{{"a:1", "", 0, false}, {"b:1", "", 0, false}}},
		"not all of them say":                    {sequence: []met{{"a:1", "s", 1, false}, {"b:1", "", 0, true}, {"b:1", "s", 2, true}}},
		"the address is hidden by the user's":    {sequence: []met{{"", "", 0, false}, {"b:1", "", 0, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			var p primary
			last := ""
			for i, m := range tt.sequence {
				info, changed := p.met(m.addr, outcome.Identity{System: m.system, Timeline: m.timeline}, !tt.any)
				require.Equal(t, m.changed, changed, "%d", i)
				if changed {
					require.Equal(t, FailoverInfo{From: last, To: m.addr, Timeline: m.timeline}, info)
				}
				last = p.addr
			}
		})
	}
}
