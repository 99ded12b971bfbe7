package upstream

import (
	"net/netip"
	"sync"
)

// Sources holds one endpoint per key for destinations that are not configured
// but met: the program as each of its clients sees it, and original
// destinations. Endpoints without users and without connections are forgotten
// by Reap.
type Sources struct {
	mu   sync.Mutex
	byID map[SourceKey]*source
}

// SourceKey names an endpoint of Sources.
type SourceKey struct {
	Source netip.Addr     // address the server sees as its client; invalid if it does not matter
	Target netip.AddrPort // where connections go
	Via    netip.AddrPort // the proxy that takes them there; invalid if none does
}

type source struct {
	endpoint *Endpoint
	users    int
}

// Acquire returns the endpoint of key, made by make if it is new. Each Acquire
// needs one Release.
func (s *Sources) Acquire(key SourceKey, create func() *Endpoint) *Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[SourceKey]*source{}
	}
	src := s.byID[key]
	if src == nil {
		src = &source{endpoint: create()}
		s.byID[key] = src
	}
	src.users++
	return src.endpoint
}

// Release ends one use of key's endpoint.
func (s *Sources) Release(key SourceKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := s.byID[key]; src != nil {
		src.users--
	}
}

// Reap reaps each endpoint and forgets the unused ones. It holds up nobody: the
// endpoints are looked at one by one, without the lock.
func (s *Sources) Reap(now int64) {
	for key, e := range s.Endpoints() {
		if e.Reap(now) == 0 {
			s.forget(key, e)
		}
	}
}

// forget forgets e unless it has been taken into use again.
func (s *Sources) forget(key SourceKey, e *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := s.byID[key]; src != nil && src.endpoint == e && src.users <= 0 && e.conns.Load() == 0 {
		e.Close()
		delete(s.byID, key)
	}
}

// Endpoints lists what is held now.
func (s *Sources) Endpoints() map[SourceKey]*Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make(map[SourceKey]*Endpoint, len(s.byID))
	for key, src := range s.byID {
		held[key] = src.endpoint
	}
	return held
}

// Close closes every endpoint, as Endpoint.Close does, and forgets them.
func (s *Sources) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.byID {
		src.endpoint.Close()
	}
	clear(s.byID)
}
