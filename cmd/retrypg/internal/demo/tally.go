package demo

import (
	"errors"
	"sync"
	"time"

	"github.com/retrypg/retrypg"
)

// told is what a program told the one who asked for a transfer.
type told uint8

const (
	toldNothing told = iota
	toldOK
	toldError
	toldUnknown // COMMIT was sent and its answer lost: only retrypg says so
)

func verdictOf(err error) told {
	switch {
	case err == nil:
		return toldOK
	case errors.Is(err, retrypg.ErrCommitUnknown):
		return toldUnknown
	}
	return toldError
}

// counts are the transfers asked for and what was told of them.
type counts struct{ asked, ok, errors, unknown int }

func (c counts) minus(o counts) counts {
	return counts{c.asked - o.asked, c.ok - o.ok, c.errors - o.errors, c.unknown - o.unknown}
}

// tally keeps what one program told of each transfer. It is safe for concurrent use.
type tally struct {
	mu      sync.Mutex
	asked   []transfer // by their numbers
	told    []told     // what of them
	counts  counts
	phase   string
	lastOK  time.Time
	lastIn  string // phase of lastOK
	gap     time.Duration
	gapIn   string // phase in which the longest gap began
	lastErr error  // the newest error that was told
	series  *series
}

func newTally() *tally { return &tally{series: newSeries(time.Time{})} }

// begin starts the clocks of the gaps and of the series.
func (t *tally) begin(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastOK, t.series = now, newSeries(now)
}

// enter notes the phase that begins.
func (t *tally) enter(phase string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = phase
	if t.lastIn == "" {
		t.lastIn = phase
	}
}

// ask gives a new transfer its number.
func (t *tally) ask(asked transfer) transfer {
	t.mu.Lock()
	defer t.mu.Unlock()
	asked.id = int64(len(t.asked))
	t.asked = append(t.asked, asked)
	t.told = append(t.told, toldNothing)
	t.counts.asked++
	return asked
}

// tell notes the end of a transfer, whose caller waited for that time.
func (t *tally) tell(id int64, err error, now time.Time, took time.Duration) {
	verdict := verdictOf(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told[id] = verdict
	t.series.answer(verdict, now, took)
	switch verdict {
	case toldOK:
		t.counts.ok++
		t.closeGap(now)
	case toldUnknown:
		t.counts.unknown++
	default:
		t.counts.errors++
		t.lastErr = err
	}
}

// end ends the last gap.
func (t *tally) end(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeGap(now)
}

func (t *tally) closeGap(now time.Time) {
	if gap := now.Sub(t.lastOK); gap > t.gap {
		t.gap, t.gapIn = gap, t.lastIn
	}
	t.series.gap(t.lastOK, now)
	t.lastOK, t.lastIn = now, t.phase
}

func (t *tally) snapshot() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}
