package http1

// NormalizePath is what Request.Parse does to an origin-form target, for
// requests that came in another framing: see normalizePath. It changes target.
func NormalizePath(target []byte) ([]byte, error) { return normalizePath(target) }
