package upstream

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The three calls below do not tell the scheduler that they enter the kernel
// (RawSyscall). That is right because they never wait (MSG_DONTWAIT, whatever
// the mode of the socket; a time limit of 0), and it is worth it: each ordinary
// system call of a process that was idle wakes the runtime's monitor thread,
// which then naps in steps of 20 µs beside us until it believes that nothing is
// stuck. Left alone, the monitor still looks around at every expiry of a timer,
// so a goroutine that computes cannot hog a processor for long.

// receive reads into p, which must not be empty; 0 without an error is the end
// of the stream.
func receive(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// send writes some of p, which must not be empty.
func send(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// pollNow looks which of the events of p hold.
func pollNow(p *unix.PollFd) syscall.Errno {
	var limit unix.Timespec
	_, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(p)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return errno
}
