package retrypg

import (
	"sync"

	"github.com/retrypg/retrypg/internal/outcome"
)

// FailoverInfo tells Hooks.Failover where the primary was, and is.
type FailoverInfo struct {
	From, To string // the addresses that were dialled, host:port or the path of a socket; the same where a proxy or a virtual address leads there
	// Timeline is the timeline of the new primary's write-ahead log; 0 where it is not known.
	Timeline uint32
}

// primary is the primary that a core has met last.
type primary struct {
	mu       sync.Mutex
	addr     string
	timeline uint32
}

// met notes the primary at addr, and returns what there is to tell if it is another one than before: a promotion begins a new
// timeline. Where no timeline is known, another address tells.
func (p *primary) met(addr string, timeline uint32) (info FailoverInfo, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.timeline != 0 && timeline != 0:
		if changed = timeline > p.timeline; !changed && timeline < p.timeline {
			return info, false // an old primary that does not know yet
		}
	default:
		changed = p.addr != "" && addr != p.addr
	}
	info = FailoverInfo{From: p.addr, To: addr, Timeline: timeline}
	p.addr = addr
	if timeline != 0 {
		p.timeline = timeline
	}
	return info, changed
}

// connected tells of a failover that a new connection has shown. Where any server is good, another address is no news.
func (c *core) connected(l *link) {
	id := outcome.Identity{}
	if l.identified {
		id = l.server
	}
	if id.Standby || id.Timeline == 0 && !c.wantsPrimary {
		return
	}
	info, changed := c.primary.met(dialled(l.pg), id.Timeline)
	if !changed {
		return
	}
	c.log.Failover(info.From, info.To)
	if hook := c.set.hooks.Failover; hook != nil {
		hook(info)
	}
}
