package graph

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteJSON writes the graph as indented JSON.
func (g *Graph) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	out := *g
	if out.Nodes == nil {
		out.Nodes = []Node{} // [] and not null
	}
	if out.Edges == nil {
		out.Edges = []Edge{}
	}
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("write graph as JSON: %w", err)
	}
	return nil
}

// WriteTable writes the edges and the nodes as two tables with aligned columns.
func (g *Graph) WriteTable(w io.Writer) error {
	n := g.names()
	if len(g.Edges) == 0 {
		where := ""
		if g.Namespace != "" {
			where = " of namespace " + g.Namespace
		}
		_, err := fmt.Fprintf(w, "No traffic%s in the %s until %s.\n", where, seconds(g.WindowSeconds), g.At.Format(time.RFC3339))
		return wrap(err)
	}
	edges := table{{"SOURCE", "DESTINATION", "SERVICE", "PROTOCOL", ">RATE", ">ERRORS", ">P50", ">P95", ">P99", ">SENT", ">RECEIVED", ">MTLS", "HEALTH"}}
	for i := range g.Edges {
		e := &g.Edges[i]
		rate, errs, p50, p95, p99 := "-", "-", "-", "-", "-"
		if e.Requests > 0 {
			rate, errs = perSecond(e.RequestsPerSecond), percent(e.ErrorShare)
		} else if e.ConnectionsOpened > 0 {
			rate = number(e.ConnectionsOpened/g.EffectiveSeconds) + " conn/s"
		} else if m := e.MessagesSentPerSecond + e.MessagesReceivedPerSecond; m > 0 {
			rate = number(m) + " msg/s"
		}
		if e.Latency != nil {
			p50, p95, p99 = millis(e.Latency.P50), millis(e.Latency.P95), millis(e.Latency.P99)
		}
		mtls := "-"
		if e.MTLSShare != nil {
			mtls = percent(*e.MTLSShare)
		}
		edges = append(edges, []string{
			n[e.Source], n[e.Destination], shortHost(e.Service), string(e.Protocol), rate, errs, p50, p95, p99,
			bytesPerSecond(e.BytesSentPerSecond), bytesPerSecond(e.BytesReceivedPerSecond), mtls, string(e.Health),
		})
	}
	nodes := table{{"NODE", "KIND", ">IN", ">ERRORS", ">OUT", ">BYTES", "HEALTH"}}
	for i := range g.Nodes {
		d := &g.Nodes[i]
		in, errs, out := "-", "-", "-"
		if d.Incoming.RequestsPerSecond > 0 {
			in, errs = perSecond(d.Incoming.RequestsPerSecond), percent(d.Incoming.ErrorShare)
		}
		if d.Outgoing.RequestsPerSecond > 0 {
			out = perSecond(d.Outgoing.RequestsPerSecond)
		}
		nodes = append(nodes, []string{
			n[d.ID], string(d.Kind), in, errs, out,
			bytesPerSecond(d.Incoming.BytesPerSecond + d.Outgoing.BytesPerSecond), string(d.Health),
		})
	}
	var b strings.Builder
	edges.write(&b)
	b.WriteByte('\n')
	nodes.write(&b)
	counted := seconds(math.Round(g.EffectiveSeconds))
	switch excess := g.EffectiveSeconds - g.WindowSeconds; {
	case excess <= -1:
		fmt.Fprintf(&b, "\nRates are over the %s that have been counted so far.\n", counted)
	case excess >= 1:
		fmt.Fprintf(&b, "\nRates are over %s, not %s: nothing was scraped in between.\n", counted, seconds(g.WindowSeconds))
	}
	_, err := io.WriteString(w, b.String())
	return wrap(err)
}

func wrap(err error) error {
	if err != nil {
		return fmt.Errorf("write graph: %w", err)
	}
	return nil
}

// table is rows of cells; a heading that begins with > aligns its column right.
type table [][]string

func (t table) write(b *strings.Builder) {
	right := make([]bool, len(t[0]))
	width := make([]int, len(t[0]))
	for i, h := range t[0] {
		t[0][i], right[i] = strings.CutPrefix(h, ">")
	}
	for _, row := range t {
		for i, cell := range row {
			row[i] = printable(cell)
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range t {
		cells := make([]string, len(row))
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if right[i] {
				cells[i] = pad + cell
			} else {
				cells[i] = cell + pad
			}
		}
		b.WriteString(strings.TrimRight(strings.Join(cells, "  "), " "))
		b.WriteByte('\n')
	}
}

// WriteDOT writes the graph in Graphviz's language.
func (g *Graph) WriteDOT(w io.Writer) error {
	n := g.names()
	var b strings.Builder
	b.WriteString("digraph vitrine {\n  rankdir=LR\n  node [shape=box, style=rounded]\n")
	for i := range g.Nodes {
		d := &g.Nodes[i]
		fmt.Fprintf(&b, "  %s [label=%s, color=%s%s]\n", dotQuote(d.ID), dotQuote(n[d.ID]), colour(d.Health), dotShape(d.Kind))
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		fmt.Fprintf(&b, "  %s -> %s [label=%s, color=%s]\n",
			dotQuote(e.Source), dotQuote(e.Destination), dotQuote(strings.Join(e.summary(), "\n")), colour(e.Health))
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return wrap(err)
}

func dotQuote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}

func dotShape(k Kind) string {
	switch k {
	case KindService:
		return ", shape=component"
	case KindUnknown:
		return ", style=dashed"
	case KindPassthrough:
		return ", shape=cds"
	case KindWorkload:
	}
	return ""
}

func colour(h Health) string {
	switch h {
	case HealthHealthy:
		return "forestgreen"
	case HealthDegraded:
		return "orange"
	case HealthFailure:
		return "red"
	case HealthNone:
	}
	return "gray"
}

// WriteMermaid writes the graph as a Mermaid flowchart.
func (g *Graph) WriteMermaid(w io.Writer) error {
	n := g.names()
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	ids := make(map[string]string, len(g.Nodes))
	classes := map[Health][]string{}
	for i := range g.Nodes {
		d := &g.Nodes[i]
		ids[d.ID] = fmt.Sprintf("n%d", i)
		open, shut := "[", "]"
		switch d.Kind {
		case KindService:
			open, shut = "[[", "]]"
		case KindUnknown:
			open, shut = "([", "])"
		case KindPassthrough:
			open, shut = ">", "]"
		case KindWorkload:
		}
		fmt.Fprintf(&b, "  %s%s%s%s\n", ids[d.ID], open, mermaidQuote(n[d.ID]), shut)
		classes[d.Health] = append(classes[d.Health], ids[d.ID])
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		fmt.Fprintf(&b, "  %s -->|%s| %s\n", ids[e.Source], mermaidQuote(strings.Join(e.summary(), ", ")), ids[e.Destination])
	}
	for _, h := range []Health{HealthHealthy, HealthDegraded, HealthFailure} {
		if len(classes[h]) > 0 {
			fmt.Fprintf(&b, "  classDef %s stroke:%s\n  class %s %s\n", h, colour(h), strings.Join(classes[h], ","), h)
		}
	}
	_, err := io.WriteString(w, b.String())
	return wrap(err)
}

// mermaidQuote quotes a text; Mermaid has entities, but no escapes.
func mermaidQuote(s string) string {
	return `"` + strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;").Replace(printable(s)) + `"`
}

// summary is what is written on an edge.
func (e *Edge) summary() []string {
	var out []string
	switch {
	case e.Requests > 0:
		out = append(out, string(e.Protocol)+" "+perSecond(e.RequestsPerSecond))
		if e.ErrorShare > 0 {
			out = append(out, percent(e.ErrorShare)+" errors")
		}
		if e.Latency != nil {
			out = append(out, "p95 "+millis(e.Latency.P95))
		}
	case e.MessagesSentPerSecond+e.MessagesReceivedPerSecond > 0:
		out = append(out, string(e.Protocol)+" "+number(e.MessagesSentPerSecond+e.MessagesReceivedPerSecond)+" msg/s")
	default:
		out = append(out, string(e.Protocol)+" "+bytesPerSecond(e.BytesSentPerSecond+e.BytesReceivedPerSecond))
	}
	return out
}
