package pod

import (
	"bytes"
	"os"
	"strconv"
)

// startTicks is when a process started, in clock ticks since boot (field 22 of
// /proc/PID/stat); 0 if there is no such process.
func startTicks(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The second field is the program's name in parentheses and may hold
	// anything, parentheses and spaces too.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	n, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
