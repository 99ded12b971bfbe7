package upstream

import "sync"

// Sizes of pooled memory. A head nearly always fits the small size; the large
// one is for bodies on the move and for heads up to the limit.
const (
	SmallBuffer = 4 << 10
	LargeBuffer = 64 << 10
)

// Buffer is a byte window over pooled memory: Bytes are unread, Free is room
// behind them. The zero Buffer holds no memory until Take or Grow. It belongs
// to one goroutine; Release gives the memory back, after which no slice of it
// may be used.
//
// Around the unread bytes there is always room for a chunk's frame (Frame).
type Buffer struct {
	mem   []byte
	r, w  int
	large bool // Take gives large memory
}

// Room that is never filled by reads: in front of and behind the unread bytes.
const (
	frontRoom = 16
	backRoom  = 8
)

var (
	smallPool = sync.Pool{New: func() any { return new([SmallBuffer]byte) }} //nolint:gochecknoglobals // a pool of plain memory has no owner
	largePool = sync.Pool{New: func() any { return new([LargeBuffer]byte) }} //nolint:gochecknoglobals // as above
)

// Prefer says which memory an empty buffer takes from now on: large for bulk.
func (b *Buffer) Prefer(large bool) { b.large = large }

// Take makes sure that the buffer has memory.
func (b *Buffer) Take() {
	if b.mem != nil {
		return
	}
	if b.large {
		b.mem = largePool.Get().(*[LargeBuffer]byte)[:]
	} else {
		b.mem = smallPool.Get().(*[SmallBuffer]byte)[:]
	}
	b.r, b.w = frontRoom, frontRoom
}

// TakeLarge gives an empty buffer large memory; one that holds bytes keeps
// them.
func (b *Buffer) TakeLarge() {
	if len(b.mem) == LargeBuffer {
		return
	}
	next := largePool.Get().(*[LargeBuffer]byte)[:]
	n := copy(next[frontRoom:], b.mem[b.r:b.w])
	b.Release()
	b.mem, b.r, b.w = next, frontRoom, frontRoom+n
}

// Release gives the memory back; unread bytes are lost.
func (b *Buffer) Release() {
	switch len(b.mem) {
	case 0:
	case SmallBuffer:
		smallPool.Put((*[SmallBuffer]byte)(b.mem))
	case LargeBuffer:
		largePool.Put((*[LargeBuffer]byte)(b.mem))
	}
	*b = Buffer{large: b.large}
}

// ReleaseIfEmpty gives the memory back unless unread bytes are in it.
func (b *Buffer) ReleaseIfEmpty() {
	if b.r == b.w {
		b.Release()
	}
}

// Bytes are the unread bytes. The slice is good until the next call that
// changes the buffer.
func (b *Buffer) Bytes() []byte { return b.mem[b.r:b.w] }

// Len is the number of unread bytes.
func (b *Buffer) Len() int { return b.w - b.r }

// Free is the room behind the unread bytes.
func (b *Buffer) Free() []byte { return b.mem[b.w : len(b.mem)-backRoom] }

// Wrote says that n bytes of Free were filled.
func (b *Buffer) Wrote(n int) { b.w += n }

// Skip takes n unread bytes away.
func (b *Buffer) Skip(n int) {
	b.r += n
	if b.r == b.w {
		b.r, b.w = frontRoom, frontRoom
	}
}

// Frame returns the unread bytes from … to with head written directly in front
// of them and tail directly behind, in place. head may have 16 bytes, tail 8;
// they overwrite what is there, which must no longer be needed.
func (b *Buffer) Frame(from, to int, head []byte, tail string) []byte {
	from, to = b.r+from, b.r+to
	copy(b.mem[from-len(head):], head)
	copy(b.mem[to:], tail)
	return b.mem[from-len(head) : to+len(tail)]
}

// MakeRoom makes Free not empty: it moves the unread bytes to the front, or to
// large memory. It reports false when a large buffer is full.
func (b *Buffer) MakeRoom() bool {
	b.Take()
	if len(b.Free()) > 0 {
		return true
	}
	if b.r > frontRoom {
		b.toFront()
		return true
	}
	if len(b.mem) == LargeBuffer {
		return false
	}
	b.TakeLarge()
	return true
}

func (b *Buffer) toFront() {
	b.w = frontRoom + copy(b.mem[frontRoom:], b.mem[b.r:b.w])
	b.r = frontRoom
}
