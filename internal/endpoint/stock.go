package endpoint

import (
	"context"
	"errors"
	"slices"
)

// Stock is what a call may be served from without the server: the idle connections of a pool, which others give back while no
// further one can be made, as of a server that has no room for more. All fields are needed.
type Stock struct {
	// Owner tells stocks apart; it is comparable.
	Owner any
	// Has reports whether there seems to be something in the stock. It does not block.
	Has func() bool
	// Take serves the call from the stock, which may block. ErrEmpty says that nothing was there any more; any other error ends
	// the call.
	Take func(ctx context.Context) error
}

// ErrEmpty says that a Stock was empty.
var ErrEmpty = errors.New("nothing in stock")

// Stocked says that something came into the stock of owner: the call that has waited longest for it is to take it. It takes no lock
// while the server is there.
func (g *Gate) Stocked(owner any) {
	if !g.down.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.waiters, func(w *waiter) bool { return w.owner != nil && w.owner == owner })
	if i < 0 {
		return
	}
	w := g.waiters[i]
	g.waiters = slices.Delete(g.waiters, i, i+1)
	w.turn <- turnTake
}
