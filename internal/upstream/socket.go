package upstream

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A message of up to this size goes to the kernel without telling the scheduler.
const briefBytes = 4 << 10

// The calls below do not tell the scheduler that they enter the kernel
// (RawSyscall). That is right because they never wait (MSG_DONTWAIT, whatever
// the mode of the socket; a time limit of 0), and it is worth it: each ordinary
// system call of a process that was idle wakes the runtime's monitor thread,
// which then naps in steps of 20 µs beside us until it believes that nothing is
// stuck. Left alone, the monitor still looks around at every expiry of a timer,
// so a goroutine that computes cannot hog a processor for long.
//
// What never waits may still take its time: on loopback the receiver's side of
// the stack runs within the sender's call, and memory may have to be found. So
// messages of more than briefBytes go the ordinary way, on which the runtime can
// hand the processor to other goroutines and need not wait to collect garbage.

// receive reads into p, which must not be empty; 0 without an error is the end
// of the stream.
func receive(fd uintptr, p []byte) (int, syscall.Errno) {
	return transfer(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT)
}

// send writes some of p, which must not be empty.
func send(fd uintptr, p []byte) (int, syscall.Errno) {
	return transfer(syscall.SYS_SENDTO, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// peek looks at the first byte that is waiting, without taking it; 0 without an
// error is the end of the stream.
func peek(fd uintptr, first *[1]byte) (int, syscall.Errno) {
	return transfer(syscall.SYS_RECVFROM, fd, first[:], syscall.MSG_DONTWAIT|syscall.MSG_PEEK)
}

func transfer(call, fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	var n uintptr
	var errno syscall.Errno
	if len(p) <= briefBytes {
		n, _, errno = syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	}
	return int(n), errno
}

// pollNow looks which of the events of p hold.
func pollNow(p *unix.PollFd) syscall.Errno {
	var limit unix.Timespec
	_, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(p)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return errno
}
