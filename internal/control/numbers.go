package control

import (
	"container/list"
	"fmt"
	"maps"
	"slices"
)

// maxRemembered is how many keys without a holder keep their number. It bounds
// the state file; a Job's pods never come back, a StatefulSet's do.
const maxRemembered = 4096

// numbers gives small numbers to names: the same name gets the same number
// again as long as it is remembered, and a number that is free is given out as
// late as possible (round robin, then the longest unused). Not safe for
// concurrent use.
type numbers struct {
	first, last uint16 // inclusive
	cursor      uint16 // where the search for a free number goes on
	byKey       map[string]*number
	byNum       map[uint16]*number
	idle        *list.List // of *number without holder, longest unused first
	changed     bool       // since the last save
}

type number struct {
	key  string
	num  uint16
	idle *list.Element // nil while held
}

// savedNumbers is the form of numbers in the state file. Idle names the keys
// without holder, longest unused first.
type savedNumbers struct {
	Cursor uint16            `json:"cursor"`
	Held   map[string]uint16 `json:"held"`
	Idle   []savedNumber     `json:"idle"`
}

type savedNumber struct {
	Key string `json:"key"`
	Num uint16 `json:"num"`
}

func newNumbers(first, last uint16) *numbers {
	return &numbers{
		first: first, last: last, cursor: first,
		byKey: map[string]*number{}, byNum: map[uint16]*number{}, idle: list.New(),
	}
}

// take gives key its number; ok is false when every number is held.
func (n *numbers) take(key string) (num uint16, ok bool) {
	if e := n.byKey[key]; e != nil {
		n.hold(e)
		return e.num, true
	}
	num, ok = n.free()
	if !ok {
		return 0, false
	}
	n.insert(key, num)
	n.changed = true
	return num, true
}

// claim makes num the number of key, which brought it along. A holder of the
// same number under another name loses it and is returned.
func (n *numbers) claim(key string, num uint16) (loser string) {
	if e := n.byKey[key]; e != nil {
		if e.num == num {
			n.hold(e)
			return ""
		}
		n.forget(e)
	}
	if e := n.byNum[num]; e != nil {
		if e.idle == nil {
			loser = e.key
		}
		n.forget(e)
	}
	n.insert(key, num)
	n.changed = true
	return loser
}

// release lets key's number go; it stays reserved for key until it is needed
// for another one.
func (n *numbers) release(key string) {
	e := n.byKey[key]
	if e == nil || e.idle != nil {
		return
	}
	e.idle = n.idle.PushBack(e)
	n.changed = true
	for n.idle.Len() > maxRemembered {
		n.forget(n.idle.Front().Value.(*number))
	}
}

func (n *numbers) hold(e *number) {
	if e.idle != nil {
		n.idle.Remove(e.idle)
		e.idle = nil
		n.changed = true
	}
}

func (n *numbers) insert(key string, num uint16) *number {
	e := &number{key: key, num: num}
	n.byKey[key], n.byNum[num] = e, e
	return e
}

func (n *numbers) forget(e *number) {
	if e.idle != nil {
		n.idle.Remove(e.idle)
	}
	delete(n.byKey, e.key)
	delete(n.byNum, e.num)
}

// free finds a number for a new key.
func (n *numbers) free() (uint16, bool) {
	size := int(n.last) - int(n.first) + 1
	if len(n.byNum) < size {
		for range size {
			num := n.cursor
			n.advance(num)
			if n.byNum[num] == nil {
				return num, true
			}
		}
	}
	oldest := n.idle.Front()
	if oldest == nil {
		return 0, false
	}
	e := oldest.Value.(*number)
	n.forget(e)
	return e.num, true
}

func (n *numbers) advance(past uint16) {
	if past >= n.last {
		n.cursor = n.first
		return
	}
	n.cursor = past + 1
}

func (n *numbers) save() savedNumbers {
	s := savedNumbers{Cursor: n.cursor, Held: map[string]uint16{}, Idle: []savedNumber{}}
	for key, e := range n.byKey {
		if e.idle == nil {
			s.Held[key] = e.num
		}
	}
	for el := n.idle.Front(); el != nil; el = el.Next() {
		e := el.Value.(*number)
		s.Idle = append(s.Idle, savedNumber{Key: e.key, Num: e.num})
	}
	return s
}

// load restores what save returned. Nobody holds anything after a restart, so
// everything is idle until it is taken or claimed again.
func (n *numbers) load(s savedNumbers) error {
	held := make([]savedNumber, 0, len(s.Held))
	for _, key := range slices.Sorted(maps.Keys(s.Held)) {
		held = append(held, savedNumber{Key: key, Num: s.Held[key]})
	}
	for _, e := range slices.Concat(s.Idle, held) {
		if e.Key == "" || e.Num < n.first || e.Num > n.last {
			return fmt.Errorf("number %d of %q is outside %d to %d", e.Num, e.Key, n.first, n.last)
		}
		if n.byKey[e.Key] != nil || n.byNum[e.Num] != nil {
			return fmt.Errorf("number %d or name %q occurs twice", e.Num, e.Key)
		}
		added := n.insert(e.Key, e.Num)
		added.idle = n.idle.PushBack(added)
	}
	if s.Cursor >= n.first && s.Cursor <= n.last {
		n.cursor = s.Cursor
	}
	return nil
}
