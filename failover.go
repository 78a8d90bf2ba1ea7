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
	system   string
	timeline uint32
}

// met notes the primary at addr, and returns what there is to tell if it is another one than before: a promotion begins a new
// timeline. With alone, where there is one primary at a time and it is kept to, another cluster, or an address of a server that does not
// say who it is, has taken the place of the former.
func (p *primary) met(addr string, id outcome.Identity, alone bool) (info FailoverInfo, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.system == "" || !id.Known():
		changed = alone && p.addr != "" && addr != p.addr
	case id.System != p.system:
		changed = alone
	case id.Timeline < p.timeline:
		return info, false // an old primary that does not know yet
	default:
		changed = id.Timeline > p.timeline
	}
	info = FailoverInfo{From: p.addr, To: addr, Timeline: id.Timeline}
	p.addr = addr
	if id.Known() {
		p.system, p.timeline = id.System, id.Timeline
	}
	return info, changed
}

// connected tells of a failover that a new connection has shown.
func (c *core) connected(l *link) {
	id := outcome.Identity{}
	if l.identified {
		id = l.server
	}
	if id.Standby {
		return
	}
	info, changed := c.primary.met(dialled(l.pg), id, c.wantsPrimary && !c.order.Random)
	if !changed {
		return
	}
	c.log.Failover(info.From, info.To)
	if hook := c.set.hooks.Failover; hook != nil {
		hook(info)
	}
}
