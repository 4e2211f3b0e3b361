package clock

import "time"

// Deadline is the moment d from now at which a connection's read or write is given
// up. The kernel's and the runtime's timers count to it, so it is the machine's own
// time whatever clock a test passes, and it keeps the monotonic reading: a step of the
// wall clock moves no deadline. It is good for deadlines only.
func Deadline(d time.Duration) time.Time { return time.Now().Add(d) }
