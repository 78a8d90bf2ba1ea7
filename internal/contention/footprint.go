package contention

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Mark is an argument of a statement where it stands: at its Place, which is a text and a position in that. Both are hashes. Two
// that collide cost a wait or a conflict, and nothing else.
type Mark struct {
	Place uint64
	Value uint64 // of the argument, with its place
}

// Footprint is what the statements of an attempt touch, as far as their arguments tell: who changes an account names it in some
// parameter. At which places that is so is found out from the attempts that conflict. At such a place no two attempts of a name have the same argument at
// a time: the later one waits, before its statement is sent, until the other one has ended. A transaction that has conflicted has all
// its marks with its first statement. A Footprint is for one goroutine; a nil one sees nothing.
type Footprint struct {
	table   *footprints
	seq     uint64
	holds   owner[uint64]
	touched []touch
	number  int      // of the statement
	pending []Mark   // that Await is to wait for
	known   []uint64 // what earlier attempts have touched, which is had with the first statement: by then the attempt has a connection
	looks   Mark     // for which it has not waited, to see what comes of that
	loose   bool     // it has marks that it does not hold, and waits for none
	circled bool     // it was not let wait in a circle
	waited  bool     // it was in the way of another one
}

type touch struct {
	Mark
	at       *place
	number   int  // of the statement
	free     bool // it is not held, although its place is telling
	met      bool // another attempt was at the place meanwhile
	together bool // with the same argument
}

const (
	// maxMarks bounds the marks of an attempt, and maxPlaces the places that are known of a name. What is beyond is not looked at.
	maxMarks  = 64
	maxPlaces = 256
	// learnFor is how many attempts, of the first that touch something, run learnAt at a time, whatever that costs: of attempts that run one
	// at a time nothing is learned. Chosen: with three, about half of those that pick two things of eight are in each other's way.
	learnFor = 64
	learnAt  = 3
	// toldAtOnce is how many attempts run at a time, to begin with, where it is known at which places they conflict: they wait there, and not
	// before they begin. Chosen: with eight, two things of eight to each, as many get on at a time as can, and more of them would only wait longer.
	toldAtOnce = 8
	// explore is how many waits for another attempt's mark there are to one that is left out, so that what has become harmless is noticed.
	// Where it has not, none is left out for some time. Chosen: a deadlock holds two attempts up for a second, by default.
	explore       = 64
	afterConflict = time.Second
	afterDeadlock = time.Minute
	// A mark is taken from who has had it for enoughTimes what attempts take that wait for nobody, and for minEnough. Chosen: who holds it may wait
	// for the server, and so for the waiter.
	enoughTimes = 16
	minEnough   = 20 * time.Millisecond
)

// footprints are those of the transactions of one name.
type footprints struct {
	claims[uint64]
	places map[uint64]*place
	usual  time.Duration // that attempts take
	met    int           // how often a mark was another's
	looked time.Time     // before this none is passed by
	taught atomic.Int32  // attempts that something was learned from, until there are enough; 0: nobody has touched anything yet
}

func newFootprints() *footprints {
	f := &footprints{places: make(map[uint64]*place)}
	f.queues, f.enough = make(map[uint64]*claimQueue[uint64]), minEnough
	return f
}

// learning reports whether attempts run together to find out where they conflict.
func (t *footprints) learning() bool {
	n := t.taught.Load()
	return n > 0 && n <= learnFor
}

// Touch is told of the marks of a statement before it is sent. It is false where it may not be sent yet: Await is to be called then, and
// a snapshot of the data that was taken before is too old.
func (f *Footprint) Touch(marks []Mark) (free bool) {
	if f == nil {
		return true
	}
	t := f.table
	t.mu.Lock()
	defer t.mu.Unlock()
	f.loosenLocked()
	f.number++
	var keys []uint64
	f.pending = f.pending[:0]
	for _, m := range marks {
		if len(f.touched)+len(f.pending) >= maxMarks || f.hasTouched(m.Value) {
			continue
		}
		f.pending = append(f.pending, m)
		if !f.loose && t.tellingLocked(m.Place) && !f.mayPassLocked(m) {
			keys = append(keys, m.Value)
		}
	}
	keys = append(keys, f.known...)
	if len(keys) > 0 && !t.tryLocked(&f.holds, keys, f.seq) {
		return false
	}
	f.known = nil
	f.touchLocked()
	return true
}

// Await waits until the marks that Touch was told of are no other's, and returns how long that took. The error is that of ctx, or ErrCircle.
func (f *Footprint) Await(ctx context.Context) (waited time.Duration, err error) {
	t := f.table
	t.mu.Lock()
	keys := f.known
	for _, m := range f.pending {
		if t.tellingLocked(m.Place) && !f.holdsLocked(m.Value) {
			keys = append(keys, m.Value)
		}
	}
	t.mu.Unlock()
	if len(keys) > 0 {
		if waited, err = t.hold(ctx, &f.holds, keys, f.seq); err != nil {
			f.circled = errors.Is(err, ErrCircle)
			return waited, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.waited, f.known = f.waited || waited > 0, nil
	f.touchLocked()
	return waited, nil
}

// marks appends the marks that f has, or waits for, at places that are telling. f may be nil.
func (f *Footprint) marks(list []uint64) []uint64 {
	if f == nil {
		return list
	}
	t := f.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, touch := range f.touched {
		if t.tellingLocked(touch.Place) {
			list = append(list, touch.Value)
		}
	}
	for _, m := range f.pending {
		if t.tellingLocked(m.Place) {
			list = append(list, m.Value)
		}
	}
	return once(append(list, f.known...))
}

func (f *Footprint) hasTouched(value uint64) bool {
	return slices.ContainsFunc(f.touched, func(t touch) bool { return t.Value == value })
}

func (f *Footprint) holdsLocked(value uint64) bool {
	holder := f.table.holderLocked(value)
	return holder != nil && holder.owner == &f.holds
}

// loosenLocked notes that an attempt has marks which it does not hold, as their places were not known to be telling. It waits for the
// server then, as the server's locks may have others wait for it, and holds nothing for which they would wait here: the server sees no
// circle of which a part is here.
func (f *Footprint) loosenLocked() {
	for _, m := range f.touched {
		if !m.free && f.table.tellingLocked(m.Place) && !f.holdsLocked(m.Value) {
			f.loose = true
			f.table.dropLocked(&f.holds)
			return
		}
	}
}

// mayPassLocked reports whether a mark need not be held: it is, or it is another's and this is the time that one looks what comes of that.
func (f *Footprint) mayPassLocked(m Mark) bool {
	holder := f.table.holderLocked(m.Value)
	switch {
	case holder == nil:
		return false
	case holder.owner == &f.holds:
		return true
	}
	t := f.table
	if t.met++; t.met < explore || len(f.holds.held) > 0 || time.Now().Before(t.looked) {
		return false
	}
	t.met, t.looked, f.looks = 0, time.Now().Add(afterConflict), m
	return true
}

// touchLocked notes what is pending, and whom f meets there.
func (f *Footprint) touchLocked() {
	t := f.table
	for _, m := range f.pending {
		mine := touch{Mark: m, at: t.placeLocked(m.Place), number: f.number, free: t.tellingLocked(m.Place) && !f.holdsLocked(m.Value)}
		for _, other := range mine.at.users {
			for i := range other.touched {
				if its := &other.touched[i]; its.Place == m.Place {
					mine.met, its.met = true, true
					if its.Value == m.Value {
						mine.together, its.together = true, true
					}
				}
			}
		}
		if !slices.Contains(mine.at.users, f) {
			mine.at.users = append(mine.at.users, f)
		}
		f.touched = append(f.touched, mine)
	}
	f.pending = f.pending[:0]
	if t.taught.Load() == 0 && len(f.touched) > 0 {
		t.taught.Store(1)
	}
}

// tellingLocked reports whether attempts with the same argument at a place are in each other's way.
func (t *footprints) tellingLocked(at uint64) bool {
	p := t.places[at]
	return p != nil && p.telling
}

// Pass makes f go on without what Touch has said that it is to wait for. It waits for nothing any more, and nobody for it.
func (f *Footprint) Pass() {
	t := f.table
	t.mu.Lock()
	defer t.mu.Unlock()
	f.loose, f.known = true, nil
	t.dropLocked(&f.holds)
	f.touchLocked()
}

// atOnce returns how many attempts may run at a time with what was learned, to begin with.
func (t *footprints) atOnce() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.places {
		if p.telling {
			return toldAtOnce
		}
	}
	return 1
}

// end is told how the attempt of f has ended. It reports whether enough was learned just now.
func (t *footprints) end(f *Footprint, o Outcome, took time.Duration) (taught bool) {
	if f == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if o == Committed {
		t.timeLocked(took)
	}
	t.dropLocked(&f.holds)
	for _, m := range f.touched {
		m.at.users = slices.DeleteFunc(m.at.users, func(o *Footprint) bool { return o == f })
	}
	if f.looks != (Mark{}) {
		t.looked = time.Now().Add(map[Outcome]time.Duration{Conflict: afterConflict, Deadlock: afterDeadlock}[o])
	}
	if o == Other || f.circled || len(f.touched) == 0 {
		return false
	}
	if f.teach(o) {
		for _, p := range t.places { // with this, others tell something else
			if !p.telling {
				p.together, p.apart = share{}, share{}
			}
		}
	}
	if n := t.taught.Load(); n <= learnFor {
		t.taught.Store(n + 1)
		return n == learnFor
	}
	return false
}

// alone reports whether the attempt has met no other with the same argument where that tells something. f may be nil.
func (f *Footprint) alone() (alone bool) {
	if f == nil {
		return false
	}
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	for _, m := range f.touched {
		switch {
		case !m.at.telling:
		case m.together:
			return false
		default:
			alone = true
		}
	}
	return alone
}

// timeLocked is told how long an attempt took that committed. What they take when they wait for nobody is what counts, and few of them do: so one that is quicker
// than usual counts at once, and others only little by little.
func (t *footprints) timeLocked(took time.Duration) {
	const weight = 16
	if t.usual == 0 || took < t.usual {
		t.usual = took
	}
	t.usual += (min(took, 2*t.usual) - t.usual) / weight
	t.enough = min(max(minEnough, enoughTimes*t.usual), patience)
}

// teach tells the places at which the attempt has met others how it has ended. Where it was with the same argument at several places, that tells
// of the one only where this happens least: two transactions that change the same account have the same tenant, too. It reports whether a place
// became telling.
func (f *Footprint) teach(o Outcome) (found bool) {
	var closest *place
	for _, m := range f.touched {
		if m.Mark == f.looks {
			closest = m.at
			break
		}
		if o == Deadlock && m.number != f.number {
			continue // the statement that was sent last is the one that has waited
		}
		if m.together && (closest == nil || m.at.often() < closest.often()) {
			closest = m.at
		}
	}
	if closest != nil {
		was := closest.telling
		closest.saw(true, o)
		found = closest.telling && !was
	}
	for i, m := range f.touched {
		apart := m.met
		for k, other := range f.touched {
			if other.at == m.at && (k < i || other.together) {
				apart = false // was told already, or is not
			}
		}
		if apart {
			m.at.saw(false, o)
		}
	}
	return found
}

// placeLocked returns what is known of a place. Where there are too many, those are forgotten that tell nothing.
func (t *footprints) placeLocked(at uint64) *place {
	p := t.places[at]
	if p == nil {
		if len(t.places) >= maxPlaces {
			maps.DeleteFunc(t.places, func(_ uint64, p *place) bool { return !p.telling && len(p.users) == 0 })
		}
		p = new(place)
		t.places[at] = p
	}
	return p
}
