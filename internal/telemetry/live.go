package telemetry

import "sync"

// liveSet holds what is reported before its end.
type liveSet struct {
	mu      sync.Mutex
	conns   map[*ConnRecord]struct{}
	streams map[*account]uint64 // generation of the Record
}

func (l *liveSet) addConn(c *ConnRecord) {
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
}

func (l *liveSet) removeConn(c *ConnRecord) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

func (l *liveSet) addStream(a *account, gen uint64) {
	l.mu.Lock()
	l.streams[a] = gen
	l.mu.Unlock()
}

func (l *liveSet) removeStream(a *account) {
	l.mu.Lock()
	delete(l.streams, a)
	l.mu.Unlock()
}

// report counts the growth of all that lives. The lock that beginning and
// ending connections need is held for copying the list only.
func (l *liveSet) report() {
	l.mu.Lock()
	conns := make([]*ConnRecord, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	type stream struct {
		a   *account
		gen uint64
	}
	streams := make([]stream, 0, len(l.streams))
	for a, gen := range l.streams {
		streams = append(streams, stream{a, gen})
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		c.report(0, false)
		c.mu.Unlock()
	}
	for _, s := range streams {
		s.a.reportLive(s.gen)
	}
}

// reportLive reports a stream unless it has ended since: then its storage may
// serve another one.
func (a *account) reportLive(gen uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.liveEdge != nil && a.gen.Load() == gen {
		a.reportMessages(a.liveEdge)
	}
}
