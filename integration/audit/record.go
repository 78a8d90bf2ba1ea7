// Package audit compares what callers were told of their entries with what is there: an entry that was told to be there and
// is not is lost, one that was told not to be applied must not be there, and none may be there twice.
//
// The tables that it looks at have no unique key, so that a write which was applied twice is seen, not prevented.
package audit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// Record is what callers were told of each entry. It is safe for concurrent use.
type Record struct {
	read Reading
	next atomic.Int64

	mu      sync.Mutex
	entries []Entry
	changed chan struct{} // closed and replaced at each entry
}

// Entry is one write, and what its caller was told of it.
type Entry struct {
	ID    string
	Told  Told
	Err   error // what it was told by, if that was an error
	There int   // how often it is there, which the audit finds
}

func (e Entry) String() string {
	switch {
	case e.Told == 0:
		return fmt.Sprintf("%s is there %d times, and nobody was told of it", e.ID, e.There)
	case e.Err == nil:
		return fmt.Sprintf("%s is there %d times, told: %v", e.ID, e.There, e.Told)
	default:
		return fmt.Sprintf("%s is there %d times, told: %v: %v", e.ID, e.There, e.Told, e.Err)
	}
}

// New returns an empty record, which reads errors in that way.
func New(read Reading) *Record { return &Record{read: read, changed: make(chan struct{})} }

// Note notes what the caller was told of an entry.
func (r *Record) Note(id string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, Entry{ID: id, Told: r.read(err), Err: err})
	close(r.changed)
	r.changed = make(chan struct{})
}

// Write writes a new entry, and notes what write was told of it.
func (r *Record) Write(ctx context.Context, write func(ctx context.Context, id string) error) error {
	id := strconv.FormatInt(r.next.Add(1), 10)
	err := write(ctx, id)
	r.Note(id, err)
	return err
}

// Start starts n callers, each of which writes one entry after the other until stop is called, which waits for them, or ctx
// ends. stop may be called again.
func (r *Record) Start(ctx context.Context, n int, write func(ctx context.Context, id string) error) (stop func()) {
	done := make(chan struct{})
	var callers sync.WaitGroup
	for range n {
		callers.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-done:
					return
				default:
					_ = r.Write(ctx, write) // it is noted
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(done); callers.Wait() })
}

// Await blocks until n more callers were told one of these.
func (r *Record) Await(ctx context.Context, n int, told ...Told) error {
	r.mu.Lock()
	seen := len(r.entries)
	r.mu.Unlock()
	for more := 0; ; {
		r.mu.Lock()
		for _, e := range r.entries[seen:] {
			if slices.Contains(told, e.Told) {
				more++
			}
		}
		seen = len(r.entries)
		changed := r.changed
		r.mu.Unlock()
		if more >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d entries were told %v: %w", more, n, told, context.Cause(ctx))
		}
	}
}
