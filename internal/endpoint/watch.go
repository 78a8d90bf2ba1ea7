package endpoint

import (
	"context"
	"sync"
	"time"
)

const (
	// watchTick is how often a Watch looks at its lines. Chosen: it adds less to a failover than a person notices, and a
	// look is one pair of atomic loads for each connection.
	watchTick = 100 * time.Millisecond
	// overdue is how long an answer is awaited before the server is asked for a sign of life. Chosen: longer than most
	// statements take, and short beside what detecting a failure takes the cluster itself.
	overdue = 500 * time.Millisecond
	// maxFind bounds one search for another server, of which there may be one soon that was not when it began. Chosen: what
	// connecting takes over a long way, several times.
	maxFind = 2 * time.Second
	// maxBetweenSigns caps the time between two questions for a sign of life to a server that works on a long statement
	// and answers them. Between them lies half of the time that the statement has taken.
	maxBetweenSigns = 5 * time.Second
)

// WatchOptions say what a Watch can do. All functions are needed.
type WatchOptions struct {
	// Stagger is how long connecting may go without an answer, or a question for a sign of life, before another server is
	// looked for.
	Stagger time.Duration
	// FailOver says that also connections which were used already are ended when another server is found: that it proves
	// that theirs has lost its role.
	FailOver bool
	// Alive asks the server at an address for a sign of life.
	Alive func(ctx context.Context, network, addr string) bool
	// Find connects to a server of the role that is looked for, other than the one at addr, and returns the address of that
	// which it found.
	Find func(ctx context.Context, addr string) (found string, err error)
	// Silent is told that the server at addr is silent while another one, at found, is what is looked for. established says
	// that it was so in the midst of statements.
	Silent func(addr, found string, established bool)
	// Cut is the error that a line ends with whose server at addr is silent while another one, at found, answers.
	Cut func(addr, found string) error
}

// Watch looks after connections that wait for a server: when it falls silent and another one is found to be what is looked
// for, they are ended, so that what they were to do can be done there. Without it a server that vanished without a word
// costs what TCP takes to give up, and one whose processes are stopped costs for ever. It runs one goroutine while there are
// lines, and one for each server that it asks, until its context ends. It is safe for concurrent use.
type Watch struct {
	ctx  context.Context
	opts WatchOptions

	mu      sync.Mutex
	lines   map[*Line]struct{}
	wires   map[Wire]*Line
	servers map[string]*peer // by address, those of lines
	wake    chan struct{}    // ends the goroutine early; nil while there is none
}

// peer is what a Watch knows of a server that lines lead to.
type peer struct {
	lines int
	sign  time.Time // of life: when it last sent anything, as far as was looked
	ask   bool      // it is being asked
	next  time.Time // when it may be asked again, after another server was not found
}

// NewWatch returns a watch that ends with ctx.
func NewWatch(ctx context.Context, o WatchOptions) *Watch {
	return &Watch{ctx: ctx, opts: o, lines: make(map[*Line]struct{}), wires: make(map[Wire]*Line), servers: make(map[string]*peer)}
}

// Dial registers an attempt to connect, which abort ends. The line must be ended.
func (w *Watch) Dial(network, addr string, abort context.CancelCauseFunc) *Line {
	now := time.Now()
	l := &Line{watch: w, network: network, addr: addr, abort: abort, since: now}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines[l] = struct{}{}
	s := w.servers[addr]
	if s == nil {
		s = &peer{sign: now}
		w.servers[addr] = s
	}
	s.lines++
	if w.wake == nil && w.ctx.Err() == nil {
		w.wake = make(chan struct{})
		go w.run(w.wake)
	}
	return l
}

// Established says that a connection of one of the lines is ready for use.
func (w *Watch) Established(wire Wire) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.wires[wire]; l != nil {
		l.established, l.since = true, time.Now()
		w.servers[l.addr].sign = l.since
	}
}

func (w *Watch) end(l *Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.lines[l]; !ok {
		return
	}
	delete(w.lines, l)
	delete(w.wires, l.wire)
	s := w.servers[l.addr]
	if s.lines--; s.lines == 0 {
		delete(w.servers, l.addr)
	}
	if len(w.lines) == 0 && w.wake != nil {
		close(w.wake)
		w.wake = nil
	}
}

func (w *Watch) run(wake chan struct{}) {
	ctx, cancel := context.WithCancel(w.ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	ticker := time.NewTicker(watchTick)
	defer ticker.Stop()
	for {
		select {
		case <-wake:
			return
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, l := range w.look(now) {
				asking.Go(func() { w.ask(ctx, l) })
			}
		}
	}
}

// look returns a line to each server that is to be asked.
func (w *Watch) look(now time.Time) (suspects []*Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.lines {
		if l.moved(now) {
			w.servers[l.addr].sign = now
		}
	}
	for l := range w.lines {
		s := w.servers[l.addr]
		if s.ask {
			continue
		}
		switch {
		case now.Before(s.next):
		case l.established && !(w.opts.FailOver && l.waiting && now.Sub(l.since) >= overdue && now.Sub(s.sign) >= pause(now.Sub(l.since))):
		case !l.established && now.Sub(l.since) < w.opts.Stagger:
		default:
			s.ask = true
			suspects = append(suspects, l)
		}
	}
	return suspects
}

// pause is the time between two signs of life of a server that works on a statement for d.
func pause(d time.Duration) time.Duration { return min(max(d/2, overdue), maxBetweenSigns) }

// ask finds out whether the server of a line is silent while another is what is looked for, and ends its lines if so.
func (w *Watch) ask(ctx context.Context, l *Line) {
	began, found, established := time.Now(), "", l.isEstablished()
	// The first question is a short one: what it takes to be silent costs one connection elsewhere and no more.
	alive := established && w.alive(ctx, l, w.opts.Stagger)
	if !alive {
		found = w.find(ctx, l)
	}
	if established && !alive && w.alive(ctx, l, overdue) {
		// It was only away for a moment, or is far away, and what was found may be the same server at another address.
		alive, found = true, ""
	}
	ended := w.answered(l, began, established, alive, found)
	if len(ended) == 0 {
		return
	}
	w.opts.Silent(l.addr, found, established)
	err := w.opts.Cut(l.addr, found)
	for _, l := range ended {
		l.cut(err)
	}
}

// find returns the address of another server of the role that is looked for, or "".
func (w *Watch) find(ctx context.Context, l *Line) string {
	ctx, cancel := context.WithTimeout(ctx, maxFind)
	defer cancel()
	if addr, err := w.opts.Find(ctx, l.addr); err == nil && addr != l.addr {
		return addr
	}
	return ""
}

func (w *Watch) alive(ctx context.Context, l *Line, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return w.opts.Alive(ctx, l.network, l.addr)
}

// answered notes what was found out about the server of a line, which was established or not when it was asked, and returns the
// lines that are to end.
func (w *Watch) answered(l *Line, began time.Time, established, alive bool, found string) (ended []*Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.servers[l.addr]
	if s == nil {
		return nil // the last line has ended meanwhile
	}
	s.ask = false
	now := time.Now()
	if alive {
		s.sign = now
	}
	if found == "" {
		// Looking for another server costs connections.
		s.next = now.Add(w.opts.Stagger)
		return nil
	}
	for other := range w.lines {
		other.moved(now)
		// Lines on which the server has said something meanwhile go on, and are looked at again.
		if other.addr == l.addr && other.since.Before(began) && (established || !other.established) {
			ended = append(ended, other)
		}
	}
	return ended
}
