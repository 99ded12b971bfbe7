package telemetry

import "time"

// origin is the zero of Now.
//
//nolint:gochecknoglobals // a constant of the process: it is read, never written
var origin = time.Now()

// Now is the monotonic time in nanoseconds since an arbitrary moment of this
// process. It costs one read of the clock and is never set back.
func Now() int64 { return int64(time.Since(origin)) }
