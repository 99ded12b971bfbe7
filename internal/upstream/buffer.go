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
type Buffer struct {
	mem  []byte
	r, w int
}

var (
	smallPool = sync.Pool{New: func() any { return new([SmallBuffer]byte) }} //nolint:gochecknoglobals // a pool of plain memory has no owner
	largePool = sync.Pool{New: func() any { return new([LargeBuffer]byte) }} //nolint:gochecknoglobals // as above
)

// Take makes sure that the buffer has memory: small, if it had none.
func (b *Buffer) Take() {
	if b.mem == nil {
		b.mem = smallPool.Get().(*[SmallBuffer]byte)[:] //nolint:errcheck // the pool holds nothing else
	}
}

// TakeLarge gives an empty buffer large memory; one that holds bytes keeps
// them.
func (b *Buffer) TakeLarge() {
	if len(b.mem) == LargeBuffer {
		return
	}
	next := largePool.Get().(*[LargeBuffer]byte)[:] //nolint:errcheck // the pool holds nothing else
	n := copy(next, b.mem[b.r:b.w])
	b.Release()
	b.mem, b.r, b.w = next, 0, n
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
	*b = Buffer{}
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
func (b *Buffer) Free() []byte { return b.mem[b.w:] }

// Wrote says that n bytes of Free were filled.
func (b *Buffer) Wrote(n int) { b.w += n }

// Skip takes n unread bytes away.
func (b *Buffer) Skip(n int) {
	b.r += n
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
}

// Cap is the size of the memory held.
func (b *Buffer) Cap() int { return len(b.mem) }

// MakeRoom moves the unread bytes to the front, and to large memory if the
// buffer is full. It reports false when a large buffer is full.
func (b *Buffer) MakeRoom() bool {
	b.Take()
	if b.w < len(b.mem) {
		return true
	}
	if b.r > 0 {
		b.w = copy(b.mem, b.mem[b.r:b.w])
		b.r = 0
		return true
	}
	if len(b.mem) == LargeBuffer {
		return false
	}
	b.TakeLarge()
	return true
}

// Append copies p behind the unread bytes; it reports false, and copies
// nothing, when p does not fit even into large memory.
func (b *Buffer) Append(p []byte) bool {
	b.Take()
	if len(p) > len(b.mem)-b.w {
		if b.Len()+len(p) > LargeBuffer {
			return false
		}
		if b.Len()+len(p) > len(b.mem) {
			b.TakeLarge()
		} else {
			b.w = copy(b.mem, b.mem[b.r:b.w])
			b.r = 0
		}
	}
	b.w += copy(b.mem[b.w:], p)
	return true
}
