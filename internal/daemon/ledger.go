package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/metricstore"
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

// LedgerReader is the Output of a demo's mesh: it keeps the ledger that the load
// writes, and drops all other lines. It may be written to while it is read.
type LedgerReader struct {
	mu   sync.Mutex
	text string
}

// Write takes whole lines.
func (r *LedgerReader) Write(line []byte) (int, error) {
	if _, text, ok := strings.Cut(string(line), "] "+ledgerMark); ok {
		r.mu.Lock()
		r.text = text
		r.mu.Unlock()
	}
	return len(line), nil
}

func (r *LedgerReader) read() (*ledger, bool) {
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

// ErrDisagree says that counters and ledger differ.
var ErrDisagree = errors.New("the counters and the load's ledger disagree")

// AuditLoad ends the load of the demo, so that its ledger is final, waits until
// the last of it is scraped, and writes the ledger beside the counters of both
// proxies of every edge. It returns ErrDisagree if they differ.
func (m *Mesh) AuditLoad(ctx context.Context, reader *LedgerReader, out io.Writer) error {
	pods := map[string]bool{}
	m.notePods(pods)
	if err := m.stopSet(ctx, mesh.DefaultNamespace, loadSet); err != nil {
		return err
	}
	m.notePods(pods)
	// What proxies counted up to now is in the store after one more scrape of
	// each; another one is for a scrape that was under way.
	ctx, cancel := context.WithTimeout(ctx, 2*m.cfg.ScrapeInterval+5*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var rows []edgeCount
	var note string
	for {
		l, written := reader.read()
		if written {
			now, said, err := m.compare(ctx, l, pods)
			switch {
			case err == nil:
				rows, note = now, said
			case ctx.Err() == nil:
				return err
			}
			if len(rows) > 0 && !slices.ContainsFunc(rows, func(e edgeCount) bool { return !e.agrees() }) {
				return writeComparison(out, rows, note)
			}
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		if !written {
			return errors.New("the load left no ledger: see `vitrine logs load`")
		}
		return errors.Join(writeComparison(out, rows, note), ErrDisagree)
	}
}

func (m *Mesh) notePods(names map[string]bool) {
	for _, p := range m.local.Pods() {
		names[p.Workload.Name] = true
	}
}

// stopSet takes one set out of what is wanted and waits until it has ended.
func (m *Mesh) stopSet(ctx context.Context, namespace, name string) error {
	m.mu.Lock()
	objs, leftOut := *m.objs, m.leftOut
	m.mu.Unlock()
	objs.Sets = slices.DeleteFunc(slices.Clone(objs.Sets), func(s mesh.WorkloadSet) bool { return s.Namespace == namespace && s.Name == name })
	if err := m.apply(&objs, leftOut); err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(m.local.Pods(), func(p local.PodStatus) bool { return p.Workload.Namespace == namespace && p.Workload.Owner == name }) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// compare puts the counters beside the ledger. What lies behind the load's own
// calls is left out, and said, if the ledger cannot know it.
func (m *Mesh) compare(ctx context.Context, l *ledger, pods map[string]bool) (rows []edgeCount, note string, err error) {
	remote, err := metricstore.NewRemote("http://" + m.promAddr)
	if err != nil {
		return nil, "", err
	}
	defer remote.Close()
	window := strconv.Itoa(int(time.Since(m.started).Seconds())+60) + "s"
	samples, err := remote.Query(ctx, "increase(istio_requests_total["+window+"] anchored)", time.Now())
	if err != nil {
		return nil, "", err
	}
	counts := map[[2]string]*edgeCount{}
	outside := 0
	for _, s := range samples {
		if !pods[s.Labels["pod"]] {
			continue // of an earlier demo
		}
		key := [2]string{s.Labels["source_app"], s.Labels["destination_app"]}
		if counts[key] == nil {
			counts[key] = &edgeCount{}
		}
		if s.Labels["reporter"] == "source" {
			counts[key].client += int(s.Value)
			continue
		}
		counts[key].server += int(s.Value)
		if key[0] == "unknown" {
			outside += int(s.Value)
		}
	}
	m.mu.Lock()
	leftOut := m.leftOut
	m.mu.Unlock()
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
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b edgeCount) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.destination, b.destination))
	})
	return rows, note, nil
}

// writeComparison prints the rows, and the load's own calls as a sentence.
func writeComparison(out io.Writer, rows []edgeCount, note string) error {
	tw := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "SOURCE\tDESTINATION\tSENT\tCLIENT COUNTED\tSERVER COUNTED\t")
	sentence := ""
	for i := range rows {
		e := &rows[i]
		verdict := "exact"
		if !e.agrees() {
			verdict = "DIFFERS"
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%s\n", e.source, e.destination, e.sent, e.client, e.server, verdict)
		if e.source == loadSet {
			sentence = fmt.Sprintf("the load sent %d, counted %d at the client, %d at the server", e.sent, e.client, e.server)
		}
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print the comparison: %w", err)
	}
	if note != "" {
		fmt.Fprintln(out, note)
	}
	fmt.Fprintln(out, sentence)
	return nil
}
