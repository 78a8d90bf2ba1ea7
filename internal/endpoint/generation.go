package endpoint

import (
	"sync"
	"sync/atomic"
	"time"
)

// Hosts keeps a Host for each address that connections were made to. The zero Hosts is empty and ready for use. It is safe for
// concurrent use.
type Hosts struct {
	mu      sync.Mutex
	byAddr  map[string]*Host
	unknown Host // of addresses beyond maxHosts
}

// maxHosts bounds the addresses that are told apart: a name may lead to another one each time, for years.
const maxHosts = 1000

// Host is what is known of the server behind one address.
type Host struct {
	generation atomic.Uint64
	fencedAt   atomic.Pointer[time.Time] // nil: never
}

// At returns the Host of an address, always the same one.
func (h *Hosts) At(addr string) *Host {
	h.mu.Lock()
	defer h.mu.Unlock()
	if host, ok := h.byAddr[addr]; ok {
		return host
	}
	if len(h.byAddr) >= maxHosts {
		return &h.unknown
	}
	if h.byAddr == nil {
		h.byAddr = make(map[string]*Host)
	}
	host := &Host{}
	h.byAddr[addr] = host
	return host
}

// Generation is the number of times that the host was fenced. A connection of an earlier generation is not to be used again.
func (h *Host) Generation() uint64 { return h.generation.Load() }

// Fence begins the next generation: the server turned out to have lost its role. It reports whether it did; it does not where
// what was seen came over a connection of an earlier generation, which says nothing new.
func (h *Host) Fence(seen uint64) bool {
	if !h.generation.CompareAndSwap(seen, seen+1) {
		return false
	}
	now := time.Now()
	h.fencedAt.Store(&now)
	return true
}

// FencedWithin reports whether the host was fenced less than d ago.
func (h *Host) FencedWithin(d time.Duration) bool {
	at := h.fencedAt.Load()
	return at != nil && time.Since(*at) < d
}
