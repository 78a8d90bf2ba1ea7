package endpoint

import (
	"runtime"
	"sync"
	"weak"
)

// gates are the gates of this process that several share, each for as long as one of them does.
var gates struct {
	mu   sync.Mutex
	open map[string]weak.Pointer[Gate]
}

// Shared returns the gate of the servers that key tells, which is the same one for all of the process: however many handles
// lead to a server, one caller looks for its return. It is made with o where there is none.
func Shared(key string, o Options) *Gate {
	gates.mu.Lock()
	defer gates.mu.Unlock()
	if g := gates.open[key].Value(); g != nil {
		return g
	}
	if gates.open == nil {
		gates.open = make(map[string]weak.Pointer[Gate])
	}
	g := New(o)
	p := weak.Make(g)
	gates.open[key] = p
	runtime.AddCleanup(g, func(key string) {
		gates.mu.Lock()
		defer gates.mu.Unlock()
		if gates.open[key] == p {
			delete(gates.open, key)
		}
	}, key)
	return g
}
