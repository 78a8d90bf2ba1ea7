package endpoint

import (
	"context"
	"time"
)

// Insist makes an attempt, and after each interval in which none has ended another one beside those before: what is lost on
// the way is then sent anew so often. The first that ends decides; the others are cancelled and waited for, and a success that
// comes all the same is given to discard. The oldest is given up for the newest where there would be more than maxInsisting.
func Insist[T any](ctx context.Context, interval time.Duration, attempt func(context.Context) (T, error), discard func(T)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		number int
		value  T
		err    error
	}
	results := make(chan result)
	var cancels []context.CancelFunc // by number
	running, givenUp := 0, 0
	start := func() {
		r := result{number: len(cancels), err: errNoReturn}
		ctx, cancel := context.WithCancel(ctx)
		cancels = append(cancels, cancel)
		running++
		go func() {
			defer func() { results <- r }()
			defer cancel()
			r.value, r.err = attempt(ctx)
		}()
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	start()
	for {
		select {
		case <-ticker.C:
			if ctx.Err() != nil {
				continue
			}
			if len(cancels)-givenUp == maxInsisting {
				cancels[givenUp]()
				givenUp++
			}
			start()
		case r := <-results:
			running--
			if r.err != nil && r.number < givenUp && running > 0 {
				continue // it was told to end, and says nothing else
			}
			cancel()
			for ; running > 0; running-- {
				if late := <-results; late.err == nil {
					discard(late.value)
				}
			}
			return r.value, r.err
		}
	}
}

// maxInsisting bounds the attempts that are made at the same time. Chosen: many times what a connection takes.
const maxInsisting = 20
