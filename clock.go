package retrypg

import "time"

// instant is a reading of the monotonic clock, which takes half the time of time.Now: that reads the wall clock too. The zero
// value is no reading.
type instant time.Duration

// epoch is before the first reading, so that none is zero.
var epoch = time.Now().Add(-1)

func readClock() instant { return instant(time.Since(epoch)) }

// since returns the time that has passed since t was read.
func (t instant) since() time.Duration { return readClock().sub(t) }

func (t instant) sub(earlier instant) time.Duration { return time.Duration(t - earlier) }
