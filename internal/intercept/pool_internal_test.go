package intercept

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWhoWaitedAsksForMore: of many that wait, each that gets a socket asks for
// those of the others.
func TestWhoWaitedAsksForMore(t *testing.T) {
	p := newSocketPool(4)
	defer p.close()
	<-p.want // as the filler does
	taken := make(chan int)
	go func() {
		fd, err := p.take(t.Context(), nil)
		if err != nil {
			t.Errorf("take: %v", err)
		}
		taken <- fd
	}()
	<-p.want // asked for before waiting
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	p.put(fd)
	select {
	case got := <-taken:
		_ = unix.Close(got)
	case <-time.NewTimer(time.Minute).C:
		t.Fatal("take does not return")
	}
	select {
	case <-p.want:
	default:
		t.Error("the pool is empty, and nobody has asked for more")
	}
}
