package reach_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/retrypg/retrypg/integration/audit"
)

const (
	// pause is how long a caller that was told of an error waits before it tries again.
	pause = 10 * time.Millisecond
	// timeout is what a call with a deadline has.
	timeout = 60 * time.Second
	// winding is how long callers may take to end after the measurement.
	winding = 10 * time.Second
)

// patience is how long is waited for callers before they count as hanging. What is measured may take as long as the timeout
// of the callers; what is tested is far from that.
func patience() time.Duration {
	if *chaosRuns > 0 {
		return timeout + 15*time.Second
	}
	return timeout / 2
}

// call is one call of client.write.
type call struct {
	wanted time.Time // when the caller began, with a call that was told of an error before this one perhaps
	ended  time.Time
	err    error
}

// load is callers that write, and what they were told.
type load struct {
	client  *client
	record  *audit.Record
	timeout time.Duration // of each call; 0 for none
	once    bool          // each caller writes one entry, in place of one after the other

	mu      sync.Mutex
	calls   [][]call      // by caller
	changed chan struct{} // closed and replaced at each call that ends

	began   time.Time
	cancel  context.CancelFunc
	done    chan struct{} // closed: the callers end after their call
	callers sync.WaitGroup
	end     time.Time // of the measurement
}

// start starts n callers, which end with the test at the latest.
func (l *load) start(t *testing.T, n int) *load {
	t.Helper()
	// It ends, but without a deadline.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { cancel(); l.callers.Wait() })
	l.cancel = cancel
	l.calls, l.changed, l.done = make([][]call, n), make(chan struct{}), make(chan struct{})
	l.began = time.Now()
	for i := range n {
		l.callers.Go(func() { l.caller(ctx, i) })
	}
	return l
}

func (l *load) caller(ctx context.Context, i int) {
	for wanted := time.Now(); ; {
		err := l.call(ctx, i, wanted)
		if err == nil {
			if l.once {
				return
			}
			wanted = time.Now()
		}
		select {
		case <-l.done:
			return
		case <-ctx.Done():
			return
		default:
		}
		if err != nil {
			select {
			case <-l.done:
				return
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

func (l *load) call(ctx context.Context, i int, wanted time.Time) error {
	all := ctx
	if l.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.timeout)
		defer cancel()
	}
	err := l.record.Write(ctx, l.client.write)
	if all.Err() != nil {
		return err // it was hanging, and the measurement is over, also where the end of the call has brought it a success
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[i] = append(l.calls[i], call{wanted: wanted, ended: time.Now(), err: err})
	close(l.changed)
	l.changed = make(chan struct{})
	return err
}

// until blocks until condition, which is asked with l.mu held, is true.
func (l *load) until(ctx context.Context, condition func() bool) error {
	for {
		l.mu.Lock()
		ok, changed := condition(), l.changed
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no progress: %w", context.Cause(ctx))
		}
	}
}

// progress blocks until each caller has written so many entries more that all is in its stride.
func (l *load) progress(ctx context.Context) error {
	counts := make([]int, len(l.calls))
	l.mu.Lock()
	for i := range l.calls {
		counts[i] = l.served(i) + warm
	}
	l.mu.Unlock()
	return l.until(ctx, func() bool {
		for i, n := range counts {
			if l.served(i) < n {
				return false
			}
		}
		return true
	})
}

// served returns how many entries a caller has written. l.mu is held.
func (l *load) served(i int) (n int) {
	for _, c := range l.calls[i] {
		if c.err == nil {
			n++
		}
	}
	return n
}

// allBack blocks until each caller was served after t0, for as long as limit. It is no failure if they are not: the result
// says so.
func (l *load) allBack(ctx context.Context, t0 time.Time, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_ = l.until(ctx, func() bool { return len(l.backLocked(t0)) == len(l.calls) })
}

// backLocked returns for each caller that was served after t0 how long after it.
func (l *load) backLocked(t0 time.Time) (gaps []time.Duration) {
	for _, calls := range l.calls {
		i := len(calls)
		for i > 0 && calls[i-1].ended.After(t0) {
			i--
		}
		for _, c := range calls[i:] {
			if c.err == nil {
				gaps = append(gaps, c.ended.Sub(t0))
				break
			}
		}
	}
	slices.Sort(gaps)
	return gaps
}

// stop ends the callers after their call. One that hangs is ended in it.
func (l *load) stop() {
	l.end = time.Now()
	close(l.done)
	force := time.AfterFunc(winding, l.cancel)
	defer force.Stop()
	l.callers.Wait()
}
