package contention

// place is what is known of a parameter of a statement: whether transactions conflict that run at the same time with the same
// argument there. Those that meet nobody there say nothing.
type place struct {
	together, apart share // of attempts that met another one with the same argument, and of those that met others only
	telling         bool
	users           []*Footprint // attempts that have been there and have not ended
}

// share counts attempts, and the conflicts among them, by how bad they are. Old ones count less and less.
type share struct{ all, conflicts, times int }

const (
	// A place becomes telling by fewTogether attempts with the same argument of which fewConflicts and one in oftenOne conflict, and worseTogether
	// times as likely as others. Chosen: who waits loses as much time as an attempt takes that conflicts and is repeated, so it is not worth it
	// for rare conflicts; and an argument that all transactions have, that of a tenant say, makes no difference by itself.
	fewTogether   = 16
	fewConflicts  = 3
	oftenOne      = 4
	worseTogether = 2
	// It stays telling while one in seldomOne conflicts, and stillWorse times as likely, in percent.
	seldomOne  = 8
	stillWorse = 125
	// deadlockWeight is how many other conflicts a deadlock is as bad as: the server has held two transactions up to find out, for
	// a second by default (deadlock_timeout). Chosen, on the low side.
	deadlockWeight = 16
	// memory is after how many attempts half of them are forgotten.
	memory = 128
)

func (s *share) saw(o Outcome) {
	s.all++
	switch o {
	case Conflict:
		s.conflicts++
		s.times++
	case Deadlock:
		s.conflicts += deadlockWeight
		s.times++
	}
	if s.all >= memory {
		s.all /= 2
		s.conflicts /= 2
		s.times /= 2
	}
}

// often is how likely two attempts that are at the place have the same argument, in parts of 1000; a half where that is not known.
func (p *place) often() int {
	return 1000 * (p.together.all + 1) / (p.together.all + p.apart.all + 2)
}

// saw is told of an attempt that ended.
func (p *place) saw(together bool, o Outcome) {
	if together {
		p.together.saw(o)
	} else {
		p.apart.saw(o)
	}
	// The shares, of which that of few attempts counts for little: conflicts/all, and (conflicts+1)/(all+2) (Laplace).
	with := p.together.conflicts * (p.apart.all + 2)
	without := (p.apart.conflicts + 1) * p.together.all
	if p.telling {
		p.telling = seldomOne*p.together.conflicts >= p.together.all && 100*with >= stillWorse*without
	} else {
		p.telling = p.together.all >= fewTogether && p.together.times >= fewConflicts && oftenOne*p.together.conflicts >= p.together.all && with >= worseTogether*without
	}
}
