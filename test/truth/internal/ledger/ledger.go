// Package ledger is how the programs of the truth test write down what they
// did, in the terms in which the mesh counts it.
package ledger

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// Entry is one kind of request of one service, named as the labels of
// istio_requests_total name it.
type Entry struct {
	Service  string // destination_service_name
	Protocol string // request_protocol
	Code     int    // response_code; 0 is no response
	GRPC     string // grpc_response_status; "" if it is no gRPC
	Flags    string // response_flags
}

func (e Entry) String() string {
	return fmt.Sprintf("%s %s %d %q %s", e.Service, e.Protocol, e.Code, e.GRPC, e.Flags)
}

// Count is a number of equal requests.
type Count struct {
	Entry
	N int
}

// Tally counts requests.
type Tally map[Entry]int

// Counts lists a tally, in no order.
func (t Tally) Counts() []Count {
	out := make([]Count, 0, len(t))
	for e, n := range t {
		out = append(out, Count{e, n})
	}
	return out
}

// Add adds counts to a tally.
func (t Tally) Add(counts []Count) {
	for _, c := range counts {
		t[c.Entry] += c.N
	}
}

// Sum is the total of all entries.
func (t Tally) Sum() int {
	n := 0
	for v := range maps.Values(t) {
		n += v
	}
	return n
}

// File is a ledger on disk: each line is appended by one write, so that it
// survives a killed program.
type File struct{ f *os.File }

// Open opens the ledger of a pod in dir.
func Open(dir, pod string) (*File, error) {
	f, err := os.OpenFile(filepath.Join(dir, pod), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &File{f}, nil
}

// Line is one request, or one other fact with a number, of a pod.
type Line struct {
	Pod   string
	Entry Entry  // of a request
	Fact  string // "" for requests
	N     int
}

// Request writes down one request.
func (f *File) Request(e Entry) {
	if e.GRPC == "" {
		e.GRPC = "-"
	}
	f.write(fmt.Sprintf("request %s %s %d %s %s\n", e.Service, e.Protocol, e.Code, e.GRPC, e.Flags))
}

// Fact adds n to a named number.
func (f *File) Fact(name string, n int) { f.write(fmt.Sprintf("fact %s %d\n", name, n)) }

func (f *File) write(line string) {
	if _, err := f.f.WriteString(line); err != nil {
		panic(err) // an origin that cannot write its ledger is of no use
	}
}

// Read reads the ledgers of all pods in dir: requests and facts, both by pod.
func Read(dir string) (requests map[string]Tally, facts map[string]map[string]int, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	requests, facts = map[string]Tally{}, map[string]map[string]int{}
	for _, file := range files {
		if err := readFile(filepath.Join(dir, file.Name()), file.Name(), requests, facts); err != nil {
			return nil, nil, err
		}
	}
	return requests, facts, nil
}

func readFile(path, pod string, requests map[string]Tally, facts map[string]map[string]int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	requests[pod], facts[pod] = Tally{}, map[string]int{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var e Entry
		var name string
		var n int
		text := lines.Text()
		if strings.HasPrefix(text, "fact ") {
			if _, err := fmt.Sscanf(text, "fact %s %d", &name, &n); err != nil {
				return fmt.Errorf("%s: %q: %w", path, text, err)
			}
			facts[pod][name] += n
			continue
		}
		if _, err := fmt.Sscanf(text, "request %s %s %d %s %s", &e.Service, &e.Protocol, &e.Code, &e.GRPC, &e.Flags); err != nil {
			return fmt.Errorf("%s: %q: %w", path, text, err)
		}
		if e.GRPC == "-" {
			e.GRPC = ""
		}
		requests[pod][e]++
	}
	return lines.Err()
}
