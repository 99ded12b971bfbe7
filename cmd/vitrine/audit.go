package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// The demo's load, which keeps the ledger (demo/cmd/load).
const (
	loadSet    = "load"
	loadDoor   = "web-app" // the only service that it calls
	ledgerMark = "ledger "
)

// ledger is what the load writes at its end.
type ledger struct {
	Edges []struct {
		Source      string `json:"source"`
		Destination string `json:"destination"`
		Count       int    `json:"count"`
	} `json:"edges"`
	Exact bool `json:"exact"`
}

// ledgerReader is the Output of a demo's mesh: it keeps the ledger that the load
// writes, and drops all other lines. It may be written to while it is read.
type ledgerReader struct {
	mu   sync.Mutex
	text string
}

// Write takes whole lines.
func (r *ledgerReader) Write(line []byte) (int, error) {
	if _, text, ok := strings.Cut(string(line), "] "+ledgerMark); ok {
		r.mu.Lock()
		r.text = text
		r.mu.Unlock()
	}
	return len(line), nil
}

func (r *ledgerReader) read() (*ledger, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := new(ledger)
	if r.text == "" || json.Unmarshal([]byte(r.text), l) != nil {
		return nil, false
	}
	return l, true
}

// edgeCount is one row of the comparison.
type edgeCount struct {
	source, destination  string
	sent, client, server int
}

func (e *edgeCount) agrees() bool { return e.client == e.sent && e.server == e.sent }

// errDisagree says that counters and ledger differ.
var errDisagree = errors.New("the counters and the load's ledger disagree")

// loadAudit puts the ledger of the demo's load beside what was counted.
type loadAudit struct {
	client  *daemon.Client
	ledger  *ledgerReader
	leftOut []string // programs that are not on this machine
	// count asks for the increase of istio_requests_total since the mesh began.
	count func(ctx context.Context) ([]daemon.QuerySeries, error)
	// settle is how long the last figures may take to be scraped.
	settle time.Duration
	// scrape is how often each proxy is scraped. Agreement must outlast one more
	// round: what is counted too often comes late, too.
	scrape time.Duration
}

// run ends the load, so that its ledger is final, waits until the last of it is
// scraped, and writes the ledger beside the counters of both proxies of every
// edge. It returns errDisagree if they differ. Who ends ctx wants no verdict.
func (a *loadAudit) run(ctx context.Context, out io.Writer) error {
	err := a.settled(ctx, out)
	if err == nil || ctx.Err() == nil {
		return err
	}
	_, err = fmt.Fprintln(out, "ended before the last figures were in: they are not compared")
	return err
}

// settled compares again and again, until all has agreed for a round of scrapes or
// the last figures must be in.
func (a *loadAudit) settled(ctx context.Context, out io.Writer) error {
	pods := map[string]bool{}
	if err := a.notePods(ctx, pods); err != nil {
		return err
	}
	if err := a.client.Remove(ctx, []string{loadSet}); err != nil {
		return err
	}
	if err := a.notePods(ctx, pods); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, a.settle+a.scrape)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last *comparison // nil until there is a ledger
	var agreed time.Time // since when they have agreed
	for {
		now, err := a.look(limit, pods)
		if err != nil && limit.Err() == nil {
			return err
		}
		if now != nil {
			last = now
		}
		switch {
		case last == nil || !last.agrees():
			agreed = time.Time{}
		case agreed.IsZero():
			agreed = time.Now()
		case time.Since(agreed) > a.scrape:
			return last.write(out)
		}
		select {
		case <-tick.C:
			continue
		case <-limit.Done():
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if last == nil {
			return errors.New("the load left no ledger: see `vitrine logs load`")
		}
		return errors.Join(last.write(out), errDisagree)
	}
}

// look compares once; nil if there is no ledger yet.
func (a *loadAudit) look(ctx context.Context, pods map[string]bool) (*comparison, error) {
	l, ok := a.ledger.read()
	if !ok {
		return nil, nil
	}
	series, err := a.count(ctx)
	if err != nil {
		return nil, err
	}
	return compare(l, series, pods, a.leftOut), nil
}

func (a *loadAudit) notePods(ctx context.Context, names map[string]bool) error {
	pods, err := a.client.Pods(ctx)
	for i := range pods {
		names[pods[i].Name] = true
	}
	return err
}

// compare puts the counters beside the ledger, and what was counted on edges that
// the ledger does not have beside 0. What lies behind the load's own calls is
// left out, and said, if the ledger cannot know it.
func compare(l *ledger, series []daemon.QuerySeries, pods map[string]bool, leftOut []string) *comparison {
	var rows []edgeCount
	note := ""
	counts := map[[2]string]*edgeCount{}
	outside := 0
	for i := range series {
		s := &series[i]
		if !pods[s.Labels["pod"]] || len(s.Points) == 0 {
			continue // of an earlier demo
		}
		value := int(s.Points[len(s.Points)-1].Value)
		key := [2]string{s.Labels["source_app"], s.Labels["destination_app"]}
		if counts[key] == nil {
			counts[key] = &edgeCount{}
		}
		if s.Labels["reporter"] == "source" {
			counts[key].client += value
			continue
		}
		counts[key].server += value
		if key[0] == "unknown" {
			outside += value
		}
	}
	switch {
	case len(leftOut) > 0:
		note = "only the load's own calls are compared, since programs were left out: " + strings.Join(leftOut, ", ")
	case outside > 0:
		note = fmt.Sprintf("only the load's own calls are compared, since %d requests came from outside the mesh", outside)
	case !l.Exact:
		note = "only the load's own calls are compared, since some were not answered as expected"
	}
	for _, e := range l.Edges {
		if note != "" && (e.Source != loadSet || e.Destination != loadDoor) {
			continue
		}
		row := edgeCount{source: e.Source, destination: e.Destination, sent: e.Count}
		if c := counts[[2]string{e.Source, e.Destination}]; c != nil {
			row.client, row.server = c.client, c.server
		}
		delete(counts, [2]string{e.Source, e.Destination})
		rows = append(rows, row)
	}
	for key, c := range counts {
		if note == "" && c.client+c.server > 0 {
			rows = append(rows, edgeCount{source: key[0], destination: key[1], client: c.client, server: c.server})
		}
	}
	slices.SortFunc(rows, func(a, b edgeCount) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.destination, b.destination))
	})
	return &comparison{rows, note}
}

// comparison is the ledger beside the counters.
type comparison struct {
	rows []edgeCount
	note string // why less is compared than there is, or ""
}

func (c *comparison) agrees() bool {
	return !slices.ContainsFunc(c.rows, func(e edgeCount) bool { return !e.agrees() })
}

// write prints the rows, and the load's own calls as a sentence.
func (c *comparison) write(out io.Writer) error {
	if len(c.rows) == 0 {
		_, err := fmt.Fprintln(out, "the load has sent nothing in this time, and nothing was counted")
		return err
	}
	source, destination := len("SOURCE"), len("DESTINATION")
	for i := range c.rows {
		source, destination = max(source, len(c.rows[i].source)), max(destination, len(c.rows[i].destination))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s   %-*s   %8s   %14s   %14s\n", source, "SOURCE", destination, "DESTINATION", "SENT", "CLIENT COUNTED", "SERVER COUNTED")
	sentence := ""
	for i := range c.rows {
		e := &c.rows[i]
		verdict := "exact"
		if !e.agrees() {
			verdict = "DIFFERS"
		}
		fmt.Fprintf(&b, "%-*s   %-*s   %8d   %14d   %14d   %s\n", source, e.source, destination, e.destination, e.sent, e.client, e.server, verdict)
		if e.source == loadSet {
			sentence = fmt.Sprintf("the load sent %d, counted %d at the client, %d at the server\n", e.sent, e.client, e.server)
		}
	}
	if c.note != "" {
		b.WriteString(c.note + "\n")
	}
	b.WriteString(sentence)
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("print the comparison: %w", err)
	}
	return nil
}
