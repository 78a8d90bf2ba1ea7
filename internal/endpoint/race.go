package endpoint

import (
	"context"
	"errors"
	"time"
)

// Race makes attempts at n hosts, beginning with the first, until one succeeds. The next host's turn comes when an attempt
// has failed, or when none has succeeded for stagger, so that a host that does not answer costs that and not its timeout.
// The first success is the result; the other attempts are cancelled and waited for, and a success that comes all the
// same is given to discard. Where all fail, the error joins theirs, in the order of the hosts; that of one host is as it is.
func Race[T any](ctx context.Context, n int, stagger time.Duration, attempt func(ctx context.Context, host int) (T, error), discard func(T)) (winner T, _ error) {
	if n == 1 {
		return attempt(ctx, 0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		host     int
		value    T
		err      error
		panicked any
	}
	results := make(chan result)
	started, running, won := 0, 0, false
	var panicked any
	errs := make([]error, n)
	start := func() {
		host := started
		started++
		running++
		go func() {
			r := result{host: host, err: errNoReturn}
			defer func() {
				r.panicked = recover()
				results <- r
			}()
			r.value, r.err = attempt(ctx, host)
		}()
	}
	start()
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	for running > 0 {
		select {
		case r := <-results:
			running--
			errs[r.host] = r.err
			switch {
			case r.panicked != nil:
				panicked = r.panicked
				cancel()
			case r.err == nil && won:
				discard(r.value)
			case r.err == nil:
				winner, won = r.value, true
				cancel()
			case !won && started < n && ctx.Err() == nil:
				start()
				timer.Reset(stagger)
			}
		case <-timer.C:
			if !won && started < n && ctx.Err() == nil {
				start()
				timer.Reset(stagger)
			}
		}
	}
	switch {
	case panicked != nil:
		if won {
			discard(winner)
		}
		panic(panicked)
	case won:
		return winner, nil
	}
	return winner, errors.Join(errs...)
}

var errNoReturn = errors.New("the attempt to connect ended its goroutine")
