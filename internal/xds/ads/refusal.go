package ads

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// awaited is a response whose answer is missing.
type awaited struct {
	version string
	sent    []xds.Resource
	removed []string
	all     bool // state of the world: what is not in sent is removed
}

// refusal is what a proxy said when it refused something; the zero value is none.
type refusal struct {
	message string
	at      time.Time
}

// refusals are what a proxy refused of one type and has not accepted, in a newer
// version, or lost since. A refused resource that nobody sends again stays
// refused, whatever the proxy accepts beside it.
type refusals struct {
	whole  refusal            // of xds.RefusedWhole; until the proxy accepts anything
	byName map[string]refusal // resources
}

// add notes a refused response. A proxy takes the good resources of it and names
// the others in its message; if it names none, all count as refused.
func (r *refusals) add(wait *awaited, said *envoy.Status, now time.Time) {
	what := refusal{said.Message, now}
	if said.Code == xds.RefusedWhole {
		r.whole = what
		return
	}
	r.accept(wait)
	if len(wait.sent) == 0 {
		r.whole = what // of removals: no name could bring an end
		return
	}
	if r.byName == nil {
		r.byName = map[string]refusal{}
	}
	named := slices.ContainsFunc(wait.sent, func(s xds.Resource) bool { return mentions(said.Message, s.Name) })
	for i := range wait.sent {
		if name := wait.sent[i].Name; !named || mentions(said.Message, name) {
			r.byName[name] = what
		}
	}
}

// mentions reports whether text has the name, and not only as a part of a longer
// name: route 80 is not meant by "8080", nor by "svc:80" or "0.0.0.0_80".
func mentions(text, name string) bool {
	for at := 0; ; at++ {
		i := strings.Index(text[at:], name)
		if i < 0 {
			return false
		}
		at += i
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at+len(name):])
		if !inName(before) && before != ':' && before != '.' && !inName(after) { // both may follow: "80: no."
			return true
		}
	}
}

// inName reports whether r continues a name on either side.
func inName(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_-|", r))
}

// accept notes an accepted response.
func (r *refusals) accept(wait *awaited) {
	if wait.all {
		clear(r.byName)
	}
	for i := range wait.sent {
		delete(r.byName, wait.sent[i].Name)
	}
	for _, name := range wait.removed {
		delete(r.byName, name)
	}
}

// keep forgets the resources that the proxy does not want any more.
func (r *refusals) keep(wants func(name string) bool) {
	for name := range r.byName {
		if !wants(name) {
			delete(r.byName, name)
		}
	}
}

// last is the newest refusal that still stands; zero values if there is none.
func (r *refusals) last() (message string, at time.Time) {
	newest := r.whole
	for _, each := range r.byName {
		if each.at.After(newest.at) {
			newest = each
		}
	}
	return newest.message, newest.at
}
