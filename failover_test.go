package retrypg

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnotherTimelineIsAFailoverAndAnotherAddressOnlyWhereThereIsNone(t *testing.T) {
	type met struct {
		addr     string
		timeline uint32
		changed  bool
	}
	for name, sequence := range map[string][]met{
		"the first one is no news":            {{"a:1", 1, false}, {"a:1", 1, false}},
		"promoted":                            {{"a:1", 1, false}, {"b:1", 2, true}, {"b:1", 2, false}},
		"promoted behind a proxy":             {{"vip:1", 4, false}, {"vip:1", 5, true}},
		"two addresses of one server":         {{"a:1", 3, false}, {"b:1", 3, false}, {"a:1", 3, false}},
		"an old primary that came back":       {{"a:1", 1, false}, {"b:1", 2, true}, {"a:1", 1, false}, {"b:1", 2, false}},
		"back again":                          {{"a:1", 1, false}, {"b:1", 2, true}, {"a:1", 3, true}},
		"without timelines":                   {{"a:1", 0, false}, {"b:1", 0, true}, {"b:1", 0, false}},
		"the timeline is not told by all":     {{"a:1", 1, false}, {"b:1", 0, true}, {"b:1", 2, true}},
		"the address is hidden by the user's": {{"", 0, false}, {"b:1", 0, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var p primary
			last := ""
			for i, m := range sequence {
				info, changed := p.met(m.addr, m.timeline)
				require.Equal(t, m.changed, changed, "%d", i)
				if changed {
					require.Equal(t, FailoverInfo{From: last, To: m.addr, Timeline: m.timeline}, info)
				}
				last = p.addr
			}
		})
	}
}
