package policy

import "time"

// epoch is where now begins. Reading the monotonic clock alone takes half the time of time.Now.
var epoch = time.Now()

// now returns a monotonic time. Only differences mean anything.
func now() time.Duration { return time.Since(epoch) }
