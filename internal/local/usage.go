package local

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc/PID/stat on every
// architecture that Go supports on Linux.
const ticksPerSecond = 100

// Usage is what one container uses of the machine. The proxy's is listed under
// pod.ProxyContainer.
type Usage struct {
	Namespace, Pod, Container string
	// CPUSeconds is the time spent since the pod's process started, that of
	// ended programs included.
	CPUSeconds float64
	// WorkingSetBytes is the memory that cannot be dropped: anonymous and
	// shared pages (RssAnon + RssShmem), the closest to cAdvisor's working set
	// that an ordinary user may read.
	WorkingSetBytes uint64
	// PIDs are the processes, in the host's numbering, ascending.
	PIDs []int

	proxyPID int
}

// cpuCounters hold the CPU time of containers to what counters may do: they never
// fall, whatever is not known at a moment. Safe for concurrent use.
type cpuCounters struct {
	mu   sync.Mutex
	last map[cpuKey]float64
}

// cpuKey is one container in one life of its pod's processes.
type cpuKey struct {
	proxyPID  int
	container string
}

// keep raises what is less than it was, and forgets what is not in usage.
func (k *cpuCounters) keep(usage []Usage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := make(map[cpuKey]float64, len(usage))
	for i := range usage {
		u := &usage[i]
		key := cpuKey{u.proxyPID, u.Container}
		u.CPUSeconds = max(u.CPUSeconds, k.last[key])
		now[key] = u.CPUSeconds
	}
	k.last = now
}

// Usage measures every pod that runs, sorted by namespace, pod and container
// (the proxy last). It reads /proc once for all of them; values of processes
// that end meanwhile are counted with their parents.
//
// With several containers in a pod, processes that lost their parent, init containers
// and commands of probes count for the first container.
func (s *Supervisor) Usage() ([]Usage, error) {
	pods := s.Pods() // before the processes: see usageOf
	procs, err := readProcs()
	if err != nil {
		return nil, fmt.Errorf("measure pods: %w", err)
	}
	children := map[int][]int{}
	for pid, p := range procs {
		children[p.ppid] = append(children[p.ppid], pid)
	}
	var out []Usage
	for _, ps := range pods {
		if _, ok := procs[ps.ProxyPID]; !ok {
			continue
		}
		out = append(out, usageOf(&ps, procs, children)...)
	}
	s.cpu.keep(out)
	slices.SortStableFunc(out, func(a, b Usage) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Pod, b.Pod))
	})
	return out, nil
}

// usageOf adds up a pod. What a pod says of itself may be older than the processes are:
// CPU time may be missing then, but none counts twice or for another container.
func usageOf(ps *PodStatus, procs map[int]procStat, children map[int][]int) []Usage {
	w := &ps.Workload
	proxy := Usage{Namespace: w.Namespace, Pod: w.Name, Container: pod.ProxyContainer, proxyPID: ps.ProxyPID}
	add := func(u *Usage, pid int, ticks uint64) {
		u.CPUSeconds += float64(ticks) / ticksPerSecond
		u.WorkingSetBytes += memory(pid)
		u.PIDs = append(u.PIDs, pid)
	}
	// P0 and its child, the agent, are the proxy. What the agent reaped are
	// programs.
	p0 := procs[ps.ProxyPID]
	add(&proxy, ps.ProxyPID, p0.own)
	byPID := map[int]int{} // pid of a program to its container
	var out []Usage
	ended, known := 0.0, true // CPU time of programs that ended, and whether these are all
	starting := false         // a container is between two programs
	for _, c := range ps.Status.Containers {
		if c.Init {
			continue
		}
		if _, there := procs[c.PID]; !there && c.State != pod.Terminated {
			known, starting = known && c.PID == 0, true
		}
		byPID[c.PID] = len(out)
		ended += c.CPUSeconds
		out = append(out, Usage{Namespace: w.Namespace, Pod: w.Name, Container: c.Name, CPUSeconds: c.CPUSeconds, proxyPID: ps.ProxyPID})
	}
	if len(out) == 0 {
		return []Usage{proxy}
	}
	for _, agent := range children[ps.ProxyPID] {
		add(&proxy, agent, procs[agent].own)
		if others := float64(procs[agent].reaped)/ticksPerSecond - ended; known && others > 0 {
			out[0].CPUSeconds += others
		}
		for _, top := range children[agent] {
			i, told := byPID[top]
			if !told && starting {
				continue // it may be the program of a container that has not told of it yet
			}
			for queue := []int{top}; len(queue) > 0; queue = queue[1:] {
				pid := queue[0]
				add(&out[i], pid, procs[pid].own+procs[pid].reaped)
				queue = append(queue, children[pid]...)
			}
		}
	}
	out = append(out, proxy)
	for i := range out {
		slices.Sort(out[i].PIDs)
	}
	return out
}

// WriteMetrics writes the usage of all pods in Prometheus' text format, under
// cAdvisor's names and labels.
func (s *Supervisor) WriteMetrics(w io.Writer) error {
	usage, err := s.Usage()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	write := func(name, kind, help string, value func(*Usage) float64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		for i := range usage {
			u := &usage[i]
			fmt.Fprintf(&b, "%s{container=%q,pod=%q,namespace=%q} %s\n", name, u.Container, u.Pod, u.Namespace,
				strconv.FormatFloat(value(u), 'f', -1, 64))
		}
	}
	write("container_cpu_usage_seconds_total", "counter", "CPU time used by the container.",
		func(u *Usage) float64 { return u.CPUSeconds })
	write("container_memory_working_set_bytes", "gauge", "Memory of the container that cannot be dropped.",
		func(u *Usage) float64 { return float64(u.WorkingSetBytes) })
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write usage: %w", err)
	}
	return nil
}

// procStat is what is read of /proc/PID/stat; times in clock ticks.
type procStat struct {
	ppid   int
	own    uint64 // of the process and its threads
	reaped uint64 // of children that ended and were waited for
}

// readProcs reads all processes that exist.
func readProcs() (map[int]procStat, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return nil, err
	}
	procs := make(map[int]procStat, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it ended
		}
		if st, ok := parseStat(data); ok {
			procs[pid] = st
		}
	}
	return procs, nil
}

// parseStat reads a line of /proc/PID/stat (proc_pid_stat(5)).
func parseStat(data []byte) (st procStat, ok bool) {
	// The second field is the program's name in parentheses and may hold
	// anything, parentheses and spaces too.
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return st, false
	}
	fields := strings.Fields(string(data[end+1:])) // from field 3 on
	if len(fields) < 15 {
		return st, false
	}
	var n [5]uint64
	for i, at := range [5]int{4, 14, 15, 16, 17} {
		v, err := strconv.ParseUint(fields[at-3], 10, 63)
		if err != nil {
			return st, false
		}
		n[i] = v
	}
	return procStat{ppid: int(n[0]), own: n[1] + n[2], reaped: n[3] + n[4]}, true
}

// memory is the unreclaimable memory of a process; 0 if it has ended.
func memory(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	var sum uint64
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "RssAnon" && name != "RssShmem" {
			continue
		}
		if kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 54); err == nil {
			sum += kb << 10
		}
	}
	return sum
}
