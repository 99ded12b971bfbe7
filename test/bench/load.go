package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// loadResult is what one burst of load saw.
type loadResult struct {
	Requests int       `json:"requests"`
	Errors   int       `json:"errors"`
	Micros   []float64 `json:"micros,omitempty"` // p50, p90, p99 from the time a request was due
}

// loadMain is the constant-rate client, run as a process of its own so that it
// can be pinned to the load's core: conns connections, requests due at even
// distances over all of them, latency taken from the due time, so that a slow
// answer cannot hide the ones behind it.
func loadMain(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	addr := fs.String("addr", "", "address")
	rate := fs.Int("rate", 1000, "requests per second; 0 sends one request per connection, says so, and holds them open until its input ends")
	conns := fs.Int("conns", 16, "connections")
	dur := fs.Duration("d", 2*time.Second, "duration")
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	if *rate == 0 {
		return hold(*addr, *conns, out)
	}
	var wg sync.WaitGroup
	results := make([]loadResult, *conns)
	errs := make([]error, *conns)
	begin := time.Now().Add(200 * time.Millisecond)
	for i := range *conns {
		wg.Go(func() { results[i], errs[i] = oneConn(*addr, *rate, *conns, i, begin, *dur) })
	}
	wg.Wait()
	var sum loadResult
	var all []float64
	for i, r := range results {
		sum.Requests += r.Requests
		sum.Errors += r.Errors
		all = append(all, r.Micros...)
		if errs[i] != nil {
			sum.Errors++
		}
	}
	slices.Sort(all)
	if len(all) > 0 {
		for _, q := range []float64{0.5, 0.9, 0.99} {
			sum.Micros = append(sum.Micros, all[min(int(q*float64(len(all))), len(all)-1)])
		}
	}
	if err := errors.Join(errs...); err != nil && sum.Requests == 0 {
		return err
	}
	return json.NewEncoder(out).Encode(sum)
}

// hold opens connections, has a request in flight on all of them at once, reads
// the answers, writes one line, and keeps the connections until its input ends.
func hold(addr string, conns int, out io.Writer) error {
	open := make([]net.Conn, conns)
	for i := range open {
		conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		defer conn.Close()
		open[i] = conn
	}
	for _, conn := range open {
		if _, err := io.WriteString(conn, request); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	for _, conn := range open {
		if err := readAnswer(bufio.NewReaderSize(conn, 4096)); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(out, "held"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func oneConn(addr string, rate, conns, i int, begin time.Time, dur time.Duration) (loadResult, error) {
	var r loadResult
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return r, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	br := bufio.NewReaderSize(conn, 4096)
	gap := time.Second * time.Duration(conns) / time.Duration(rate)
	due := begin.Add(gap * time.Duration(i) / time.Duration(conns))
	for ; due.Before(begin.Add(dur)); due = due.Add(gap) {
		time.Sleep(time.Until(due))
		if err := exchange(conn, br); err != nil {
			r.Errors++
			return r, err
		}
		r.Requests++
		r.Micros = append(r.Micros, float64(time.Since(due).Nanoseconds())/1000)
	}
	return r, nil
}

const request = "GET /bench HTTP/1.1\r\nHost: origin.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"

// exchange sends one request and reads its whole answer.
func exchange(conn net.Conn, br *bufio.Reader) error {
	if _, err := io.WriteString(conn, request); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return readAnswer(br)
}

func readAnswer(br *bufio.Reader) error {
	length := -1
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read head: %w", err)
		}
		if first && string(line[9:12]) != "200" {
			return fmt.Errorf("answer %q", line)
		}
		if len(line) == 2 {
			break
		}
		const key = "content-length: "
		if len(line) > len(key) && (line[0]|0x20) == 'c' && equalFold(line[:len(key)], key) {
			n, err := strconv.Atoi(string(line[len(key) : len(line)-2]))
			if err != nil {
				return fmt.Errorf("content length: %w", err)
			}
			length = n
		}
	}
	if length < 0 {
		return errors.New("answer without content length")
	}
	_, err := br.Discard(length)
	return err
}

func equalFold(b []byte, lower string) bool {
	for i := range b {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// atRate sends a burst of constant load from the load's core.
func atRate(ctx context.Context, addr string, rate, conns int, d time.Duration) (loadResult, error) {
	self, err := os.Executable()
	if err != nil {
		return loadResult{}, fmt.Errorf("find the load client: %w", err)
	}
	out, err := exec.CommandContext(ctx, "taskset", "-c", loadCore, self, "load", "-addr", addr,
		"-rate", strconv.Itoa(rate), "-conns", strconv.Itoa(conns), "-d", d.String()).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return loadResult{}, fmt.Errorf("constant load on %s: %w", addr, err)
	}
	var r loadResult
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("constant load on %s: %w", addr, err)
	}
	if r.Errors > 0 {
		return r, fmt.Errorf("constant load on %s: %d errors", addr, r.Errors)
	}
	return r, nil
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkErrors   = regexp.MustCompile(`Socket errors: .*|Non-2xx or 3xx responses: .*`)
)

var h2loadDone = regexp.MustCompile(`(\d+) succeeded, (\d+) failed, (\d+) errored`)

// inTicks sends a burst of constant load with h2load, which sends on all
// connections in the same moment and then rests. Its latencies are those of a
// queue and are not used.
func inTicks(ctx context.Context, addr string, rate, conns int, d time.Duration) (loadResult, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*d)
	defer cancel()
	out, err := exec.CommandContext(ctx, "taskset", "-c", loadCore, "h2load", "--h1", "-t1", "-c"+strconv.Itoa(conns),
		"--rps="+strconv.FormatFloat(float64(rate)/float64(conns), 'f', -1, 64),
		"-D", strconv.Itoa(max(1, int(d.Round(time.Second).Seconds()))), "http://"+addr+"/bench").CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("h2load on %s: %w\n%s", addr, err, out)
	}
	m := h2loadDone.FindSubmatch(out)
	if m == nil || string(m[2]) != "0" || string(m[3]) != "0" {
		return loadResult{}, fmt.Errorf("h2load on %s said: %s", addr, out)
	}
	n, err := strconv.Atoi(string(m[1]))
	return loadResult{Requests: n}, err
}

// atMax sends a burst as fast as answers come, with wrk.
func atMax(ctx context.Context, addr string, conns int, d time.Duration) (loadResult, error) {
	seconds := max(1, int(d.Round(time.Second).Seconds()))
	out, err := exec.CommandContext(ctx, "taskset", "-c", loadCore, "wrk", "-t1", "-c"+strconv.Itoa(conns),
		"-d"+strconv.Itoa(seconds)+"s", "http://"+addr+"/bench").CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("wrk on %s: %w\n%s", addr, err, out)
	}
	if bad := wrkErrors.Find(out); bad != nil {
		return loadResult{}, fmt.Errorf("wrk on %s: %s", addr, bad)
	}
	m := wrkRequests.FindSubmatch(out)
	if m == nil {
		return loadResult{}, fmt.Errorf("wrk on %s said: %s", addr, out)
	}
	n, err := strconv.Atoi(string(m[1]))
	return loadResult{Requests: n}, err
}
