package demo

import "time"

// The resolution of a series. A load of DefaultDuration fits at the finest one, and a longer one has at most maxBuckets
// coarser ones: what is kept does not grow with the duration.
const (
	finestWidth = 200 * time.Millisecond
	maxBuckets  = 320
)

// Bucket is what a program told within one interval of a timeline.
type Bucket struct {
	OK, Errors, Unknown int
	Gap                 time.Duration // the longest time without a success, up to some moment of the interval
	Slowest             time.Duration // the longest time that a caller had waited who was answered in the interval
}

// merge returns the bucket of two intervals that follow each other.
func (b Bucket) merge(next Bucket) Bucket {
	return Bucket{
		OK: b.OK + next.OK, Errors: b.Errors + next.Errors, Unknown: b.Unknown + next.Unknown,
		Gap: max(b.Gap, next.Gap), Slowest: max(b.Slowest, next.Slowest),
	}
}

// series is what a program told, over time.
type series struct {
	began   time.Time
	width   time.Duration // of each bucket
	buckets []Bucket
}

func newSeries(began time.Time) *series { return &series{began: began, width: finestWidth} }

// answer counts a transfer whose caller was answered at now, after that time.
func (s *series) answer(verdict told, now time.Time, took time.Duration) {
	b := &s.buckets[s.reach(now)]
	switch verdict {
	case toldOK:
		b.OK++
	case toldUnknown:
		b.Unknown++
	default:
		b.Errors++
	}
	b.Slowest = max(b.Slowest, took)
}

// gap notes that nothing succeeded between two moments.
func (s *series) gap(from, to time.Time) {
	last := s.reach(to) // first: it may make the buckets wider
	for i := s.index(from); i <= last; i++ {
		end := s.began.Add(time.Duration(i+1) * s.width)
		if i == last {
			end = to
		}
		s.buckets[i].Gap = max(s.buckets[i].Gap, end.Sub(from))
	}
}

func (s *series) index(at time.Time) int { return max(0, int(at.Sub(s.began)/s.width)) }

// reach returns the index of the bucket of a moment, which is there afterwards.
func (s *series) reach(at time.Time) int {
	for s.index(at) >= maxBuckets {
		s.coarsen()
	}
	i := s.index(at)
	for len(s.buckets) <= i {
		s.buckets = append(s.buckets, Bucket{})
	}
	return i
}

// coarsen makes the buckets twice as wide.
func (s *series) coarsen() {
	s.width *= 2
	for i := range (len(s.buckets) + 1) / 2 {
		b := s.buckets[2*i]
		if 2*i+1 < len(s.buckets) {
			b = b.merge(s.buckets[2*i+1])
		}
		s.buckets[i] = b
	}
	s.buckets = s.buckets[:(len(s.buckets)+1)/2]
}

// align gives all series the same intervals, and returns how wide these are.
func align(all []*series) (width time.Duration) {
	var length int
	for _, s := range all {
		width = max(width, s.width)
	}
	for _, s := range all {
		for s.width < width {
			s.coarsen()
		}
		length = max(length, len(s.buckets))
	}
	for _, s := range all {
		s.buckets = append(s.buckets, make([]Bucket, length-len(s.buckets))...)
	}
	return width
}
