package telemetry

import (
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"
)

// writeProcess writes the usual process_* and go_* metrics, with the names and
// meanings of the Prometheus client libraries. What cannot be read is left out.
func writeProcess(x *exposition) {
	none := labels{}
	gauge := func(name, help string, v float64) {
		x.family(name, gaugeKind, help)
		x.float(name, none, v)
	}
	if s, ok := readProcess(); ok {
		x.family("process_cpu_seconds_total", counterKind, "CPU time used by the process, in seconds.")
		x.float("process_cpu_seconds_total", none, s.cpuSeconds)
		x.created("process_cpu_seconds", none, int64(s.startSeconds*1e3))
		gauge("process_start_time_seconds", "When the process started, in seconds since the Unix epoch.", s.startSeconds)
		gauge("process_resident_memory_bytes", "Resident memory.", s.residentBytes)
		gauge("process_virtual_memory_bytes", "Virtual memory.", s.virtualBytes)
		gauge("process_open_fds", "Open file descriptors.", s.openFDs)
		gauge("process_max_fds", "Limit of open file descriptors.", s.maxFDs)
	}
	gauge("go_goroutines", "Goroutines.", float64(runtime.NumGoroutine()))
	x.family("go_info", gaugeKind, "Version of Go; always 1.")
	x.uint("go_info", labels{tail: string(appendLabel(nil, "version", runtime.Version()))}, 1)
	writeRuntime(x)
}

// runtimeMetric is one metric of package runtime/metrics under its usual name.
type runtimeMetric struct{ source, name, kind, help string }

func runtimeMetrics() []runtimeMetric {
	return []runtimeMetric{
		{"/gc/cycles/total:gc-cycles", "go_gc_cycles_total", counterKind, "Garbage collections."},
		{"/gc/heap/allocs:bytes", "go_memstats_alloc_bytes_total", counterKind, "Bytes allocated in the heap, freed ones included."},
		{"/memory/classes/heap/objects:bytes", "go_memstats_heap_alloc_bytes", gaugeKind, "Bytes of heap objects, including those not yet swept."},
		{"/gc/heap/goal:bytes", "go_memstats_next_gc_bytes", gaugeKind, "Heap size at which the next garbage collection starts."},
		{"/memory/classes/total:bytes", "go_memstats_sys_bytes", gaugeKind, "Bytes obtained from the system."},
		{"/sched/gomaxprocs:threads", "go_sched_gomaxprocs_threads", gaugeKind, "Threads that may run Go code at once."},
	}
}

func writeRuntime(x *exposition) {
	list := runtimeMetrics()
	samples := make([]metrics.Sample, len(list))
	for i := range list {
		samples[i].Name = list[i].source
	}
	metrics.Read(samples)
	for i, m := range list {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			continue
		}
		x.family(m.name, m.kind, m.help)
		x.uint(m.name, labels{}, samples[i].Value.Uint64())
	}
}

type processStats struct {
	cpuSeconds, startSeconds, residentBytes, virtualBytes, openFDs, maxFDs float64
}

func readProcess() (processStats, bool) {
	// A process begins some milliseconds before its first package is initialised.
	s := processStats{startSeconds: float64(origin.UnixMilli()) / 1e3}
	memory, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return s, false
	}
	// In pages (proc_pid_statm(5)): all of it, and what is resident.
	var size, resident uint64
	if _, err := fmt.Sscan(string(memory), &size, &resident); err != nil {
		return s, false
	}
	s.virtualBytes = float64(size) * float64(os.Getpagesize())
	s.residentBytes = float64(resident) * float64(os.Getpagesize())
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return s, false
	}
	s.cpuSeconds = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return s, false
	}
	s.openFDs = float64(len(fds))
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return s, false
	}
	s.maxFDs = float64(limit.Cur)
	return s, true
}
