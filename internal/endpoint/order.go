package endpoint

import (
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// avoidFor is how long a server that fell silent, or turned out to have the wrong role, is the last to be tried. Chosen: a
// cluster takes it back as a standby in that time; should it be wanted again earlier, it is found all the same, at the cost of
// the attempts before it.
const avoidFor = 30 * time.Second

// Order is in which order the servers of a configuration are tried: the one that was last connected to first, those that were
// found to be of no use last, and the others as they are given, or at random. The zero Order is ready for use. It is safe
// for concurrent use.
type Order struct {
	// Random makes the order of the servers that are not to be avoided random each time, as libpq's load_balance_hosts does.
	Random bool

	mu        sync.Mutex
	preferred string               // address of the last connection
	avoided   map[string]time.Time // until when, by address
	names     map[string][]string  // what names led to when they were looked up last
}

// Prefer makes the server at addr the first to be tried: somebody has connected to it. It ignores an empty addr.
func (o *Order) Prefer(addr string) {
	if addr == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.preferred = addr
	delete(o.avoided, addr)
}

// Avoid makes the server at addr the last to be tried, for a time.
func (o *Order) Avoid(addr string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.preferred == addr {
		o.preferred = ""
	}
	if o.avoided == nil {
		o.avoided = make(map[string]time.Time)
	}
	if len(o.avoided) >= maxHosts {
		maps.DeleteFunc(o.avoided, func(_ string, until time.Time) bool { return time.Now().After(until) })
	}
	if len(o.avoided) < maxHosts {
		o.avoided[addr] = time.Now().Add(avoidFor)
	}
}

// Resolved notes what a name led to, and returns its addresses in their order. An address may have a port, which goes before
// port.
func (o *Order) Resolved(name string, port uint16, addrs []string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.names == nil {
		o.names = make(map[string][]string)
	}
	if _, ok := o.names[name]; ok || len(o.names) < maxHosts {
		o.names[name] = slices.Clone(addrs)
	}
	return inOrder(o, addrs, func(addr string) int { return o.rankLocked(WithPort(addr, port)) })
}

// Several reports whether a name led to more than one address when it was looked up last.
func (o *Order) Several(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.names[name]) > 1
}

// Sorted returns the hosts in their order. name tells the name, or address, and port of one.
func Sorted[T any](o *Order, hosts []T, name func(T) (string, uint16)) []T {
	o.mu.Lock()
	defer o.mu.Unlock()
	return inOrder(o, hosts, func(host T) int {
		name, port := name(host)
		addrs := o.names[name]
		if len(addrs) == 0 {
			return o.rankLocked(WithPort(name, port))
		}
		best := avoided
		for _, a := range addrs {
			best = min(best, o.rankLocked(WithPort(a, port)))
		}
		return best
	})
}

func inOrder[T any](o *Order, all []T, rank func(T) int) []T {
	all = slices.Clone(all)
	if o.Random {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	slices.SortStableFunc(all, func(a, b T) int { return rank(a) - rank(b) })
	return all
}

// The ranks of servers.
const (
	first = iota
	asGiven
	avoided
)

func (o *Order) rankLocked(addr string) int {
	until, ok := o.avoided[addr]
	switch {
	case ok && time.Now().Before(until):
		return avoided
	case ok:
		delete(o.avoided, addr)
	case addr == o.preferred && !o.Random:
		return first
	}
	return asGiven
}

// WithPort is the address that is dialled for a host of a configuration, as pgconn.NetworkAddress has it.
func WithPort(addr string, port uint16) string {
	if strings.HasPrefix(addr, "/") {
		return filepath.Join(addr, ".s.PGSQL.") + strconv.Itoa(int(port))
	}
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(int(port)))
}
