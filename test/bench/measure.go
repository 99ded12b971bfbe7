package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pid is the server itself: taskset replaces itself by it.
func (p *proc) pid() int { return p.cmd.Process.Pid }

// cpuNanos is the CPU time of all threads so far, from the scheduler's own
// account, which is exact to the nanosecond, unlike the ticks of /proc/PID/stat.
func cpuNanos(pid int) (uint64, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no threads of process %d", pid)
	}
	var sum uint64
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // the thread ended between the listing and the read
		}
		first, _, _ := strings.Cut(string(data), " ")
		n, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", f, err)
		}
		sum += n
	}
	return sum, nil
}

// cpuTicks are the clock ticks that all threads spent in user mode and in all,
// by which the time of cpuNanos is split.
func cpuTicks(pid int) (user, all float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	// proc(5): utime and stime are fields 14 and 15; 3 follows the name in brackets.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, err = strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	return user, user + system, err
}

// pssMiB is the proportional set size.
func pssMiB(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		if fields := strings.Fields(scan.Text()); len(fields) > 1 && fields[0] == "Pss:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("memory of process %d: no Pss line", pid)
}

// held measures memory while conns connections are open, each after one request.
func held(ctx context.Context, p *proc, conns int) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find the load client: %w", err)
	}
	cmd := exec.CommandContext(ctx, "taskset", "-c", loadCore, self, "load", "-addr", p.addr, "-rate", "0", "-conns", strconv.Itoa(conns))
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, fmt.Errorf("open connections: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, fmt.Errorf("open connections: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("open connections: %w", err)
	}
	_, err = bufio.NewReader(out).ReadString('\n')
	var mib float64
	if err == nil {
		time.Sleep(500 * time.Millisecond) // what it does after the last answer
		mib, err = pssMiB(p.pid())
	}
	_ = in.Close() // it may have ended already
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("hold %d connections to %s: %w", conns, p.name, werr)
	}
	return mib, err
}

var straceTotal = regexp.MustCompile(`(?m)^\s*100\.00\s+\S+\s+\S+\s+(\d+)`)

// syscallsPerRequest counts with strace at 500 requests/s on 16 connections.
// Calls of the Go runtime's monitor thread (nanosleep) are the runtime's own
// clock and not counted, as in the reference figures.
func syscallsPerRequest(ctx context.Context, p *proc, dir string) (float64, error) {
	path := filepath.Join(dir, p.name+".strace")
	st := exec.CommandContext(ctx, "strace", "-f", "-c", "-e", "trace=!nanosleep,clock_nanosleep", "-o", path, "-p", strconv.Itoa(p.pid()))
	var stderr bytes.Buffer
	st.Stderr = &stderr
	if err := st.Start(); err != nil {
		return 0, fmt.Errorf("start strace: %w", err)
	}
	time.Sleep(500 * time.Millisecond)
	r, err := atRate(ctx, p.addr, 500, 16, 3*time.Second)
	_ = st.Process.Signal(syscall.SIGINT)
	_ = st.Wait()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read strace: %w %s", err, stderr.String())
	}
	m := straceTotal.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("strace of %s said:\n%s%s", p.name, text, stderr.String())
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	return n / float64(r.Requests), err
}

var mallocs = regexp.MustCompile(`mallocs (\d+)`)

// allocsPerRequest asks our own hop, which prints its count of allocations on
// SIGUSR1, before and after bursts of load. Peers are not asked.
func allocsPerRequest(ctx context.Context, p *proc) (float64, error) {
	count := func() (float64, error) {
		before, err := os.ReadFile(p.log)
		if err != nil {
			return 0, fmt.Errorf("read log of %s: %w", p.name, err)
		}
		if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			return 0, fmt.Errorf("ask %s for its allocations: %w", p.name, err)
		}
		for range 50 {
			time.Sleep(20 * time.Millisecond)
			now, err := os.ReadFile(p.log)
			if err != nil {
				return 0, fmt.Errorf("read log of %s: %w", p.name, err)
			}
			if m := mallocs.FindSubmatch(now[len(before):]); m != nil {
				return strconv.ParseFloat(string(m[1]), 64)
			}
		}
		return 0, fmt.Errorf("%s did not print its allocations", p.name)
	}
	// Opening the connections is no part of it: it happens in both bursts alike.
	// The first of them all makes pools and handles warm.
	var allocs [3]float64
	var requests [3]int
	for i, d := range []time.Duration{time.Second, time.Second, 4 * time.Second} {
		before, err := count()
		if err != nil {
			return 0, err
		}
		r, err := atMax(ctx, p.addr, 16, d)
		if err != nil {
			return 0, err
		}
		after, err := count()
		if err != nil {
			return 0, err
		}
		allocs[i], requests[i] = after-before, r.Requests
	}
	return (allocs[2] - allocs[1]) / float64(requests[2]-requests[1]), nil
}
