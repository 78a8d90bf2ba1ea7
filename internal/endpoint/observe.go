package endpoint

import (
	"slices"
	"time"
)

// Observer is told of what a Gate finds out. Each function may be nil.
type Observer struct {
	// Down is called when the server is found to be away, or still to be by one who has begun to observe meanwhile, and Up when
	// it is found to be back, but to who was told of Down only. after is how long it was away, as far as somebody looked.
	Down func(err error)
	Up   func(after time.Duration, attempts int)
}

// observer is an Observer, and whether it was told of the outage that goes on.
type observer struct {
	Observer
	told bool
}

// unattended is for how long nobody may look for a server that is away until it is not known any more whether it is. Chosen: more
// than the prober's longest wait.
const unattended = time.Second

// Away reports whether the server is away. It is not known where it was a while ago and nobody has looked since.
func (g *Gate) Away() (away, known bool) {
	if !g.down.Load() {
		return false, true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return true, g.probing || len(g.waiters) > 0 || time.Since(g.failedAt) < unattended
}

// Observe makes o be told of what the gate finds out, until the returned function is called.
func (g *Gate) Observe(o Observer) (stop func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &observer{Observer: o}
	g.observers = append(g.observers, p)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.observers = slices.DeleteFunc(g.observers, func(other *observer) bool { return other == p })
	}
}

// callAll calls all functions, also where one of them panics.
func callAll(functions []func()) {
	if len(functions) > 0 {
		defer callAll(functions[1:])
		functions[0]()
	}
}
