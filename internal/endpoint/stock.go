package endpoint

import (
	"context"
	"errors"
	"time"
)

// Stock is what a call may be served from without the server: the idle connections of a pool, which others give back while no
// further one can be made, as of a server that has no room for more. All fields are needed.
type Stock struct {
	// Has reports whether there seems to be something in the stock. It does not block.
	Has func() bool
	// Take serves the call from the stock, which may block. ErrEmpty says that nothing was there any more; any other error ends
	// the call.
	Take func(ctx context.Context) error
}

// ErrEmpty says that a Stock was empty.
var ErrEmpty = errors.New("nothing in stock")

// lookAtStock is how often a call that waits looks at its stock: nobody tells it when something comes in. Chosen: some callers then
// share a connection without much of a pause, and hundreds of them look without much of a processor.
const lookAtStock = 20 * time.Millisecond

// take serves the call from its stock. done is false where it has to go on waiting.
func (c *call) take(ctx context.Context, s *Stock) (done bool, err error) {
	switch err = s.Take(ctx); {
	case err == nil:
		return true, nil
	case Over(ctx):
		return true, c.ended(ctx, nil)
	}
	return !errors.Is(err, ErrEmpty), err
}
