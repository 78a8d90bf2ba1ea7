package metrics

import "time"

const (
	lineBurst = 5                // lines of one kind that may come at once: one restart with a failover needs three
	lineEvery = 10 * time.Second // how often one more may come: 360 lines an hour at most
)

// lineLimit limits the lines of one kind. The zero value has its whole burst. Its user holds the lock.
type lineLimit struct {
	// full is when the burst will be complete again: each line puts it off by lineEvery.
	full       time.Time
	suppressed int
}

// take reports whether a line may be written at now, and if so, how many were not since the last one.
func (l *lineLimit) take(now time.Time) (ok bool, suppressed int) {
	if l.full.Before(now) {
		l.full = now
	}
	if l.full.Sub(now) > (lineBurst-1)*lineEvery {
		l.suppressed++
		return false, 0
	}
	l.full = l.full.Add(lineEvery)
	suppressed, l.suppressed = l.suppressed, 0
	return true, suppressed
}
