package contention

import (
	"sync/atomic"
	"time"
)

// phase is what a limiter or the keys do.
type phase uint32

const (
	calm      phase = iota // nothing
	watching               // a conflict was met: the outcomes of the next attempts are counted
	contended              // attempts are admitted in their turn
)

const (
	// watchFor is how many attempts are counted after a conflict. Shared memory is written for each of them, so that the
	// cost of watching is in proportion to the conflicts.
	watchFor = 32
	// watchMax is how many conflicts among them make what is watched contended: one in eight, where the throughput of
	// transactions that are repeated begins to fall behind that of some that wait. Chosen.
	watchMax = 4
	// calmAfter is how long nobody must have waited and nothing must have conflicted, in as many attempts as a watch has, until
	// there is calm again. Chosen: it is long for transactions, and a wrong guess costs a watch and few conflicts. Without
	// attempts nothing becomes calm: what comes in bursts need not learn anew each time.
	calmAfter = time.Second
)

// watch tells calm from contention. Its fields but now are guarded by the lock of who has it.
type watch struct {
	active    *atomic.Int32 // the control's
	now       atomic.Uint32 // the phase
	seen      int
	conflicts int
	trouble   time.Time // when somebody waited last, or an attempt conflicted
	quiet     int       // attempts since then
}

func (w *watch) phase() phase { return phase(w.now.Load()) }

// become changes the phase.
func (w *watch) become(p phase) {
	was := phase(w.now.Swap(uint32(p)))
	switch {
	case was == calm && p != calm:
		w.active.Add(1)
	case was != calm && p == calm:
		w.active.Add(-1)
	}
	w.seen, w.conflicts = 0, 0
	w.stir()
}

// stir notes that there is contention now.
func (w *watch) stir() { w.trouble, w.quiet = time.Now(), 0 }

// weight is what an attempt adds to the conflicts of a watch. A deadlock has held two transactions up for long: two are enough.
func (o Outcome) weight() int {
	switch o {
	case Conflict:
		return 1
	case Deadlock:
		return watchMax / 2
	}
	return 0
}

// alarm is told of a conflict of an attempt that began in the calm. It begins a watch, or adds a deadlock to one: other
// conflicts of such attempts are not counted, as their successes are not. It reports whether there is contention from now on.
func (w *watch) alarm(o Outcome) bool {
	switch {
	case w.phase() == calm:
		w.become(watching)
	case w.phase() == contended || o != Deadlock:
		return false
	}
	return w.add(o)
}

// add adds the conflict of an attempt to a watch.
func (w *watch) add(o Outcome) bool {
	if w.conflicts += o.weight(); w.conflicts < watchMax {
		return false
	}
	w.become(contended)
	return true
}

// saw counts an attempt that was watched. It reports whether there is contention from now on.
func (w *watch) saw(o Outcome) bool {
	if w.phase() != watching || o == Other {
		return false
	}
	w.seen++
	if w.add(o) {
		return true
	}
	if w.seen >= watchFor {
		w.become(calm)
	}
	return false
}

// settle ends contention that is over.
func (w *watch) settle() {
	if w.phase() == contended && w.quiet >= watchFor && time.Since(w.trouble) >= calmAfter {
		w.become(calm)
	}
}
