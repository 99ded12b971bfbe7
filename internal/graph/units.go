package graph

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// names are the shortest texts that tell the nodes apart, by ID: the namespace
// is left out if there is only one, and the version if the workload has one.
func (g *Graph) names() map[string]string {
	namespaces := map[string]bool{}
	versions := map[[2]string]int{}
	for i := range g.Nodes {
		n := &g.Nodes[i]
		if n.Namespace != "" {
			namespaces[n.Namespace] = true
		}
		if n.Kind == KindWorkload {
			versions[[2]string{n.Namespace, n.Workload}]++
		}
	}
	out := make(map[string]string, len(g.Nodes))
	for i := range g.Nodes {
		n := &g.Nodes[i]
		var s string
		switch n.Kind {
		case KindWorkload:
			s = n.Workload
			if versions[[2]string{n.Namespace, n.Workload}] > 1 && n.Version != "" {
				s += "@" + n.Version
			}
			if len(namespaces) > 1 && n.Namespace != "" {
				s = n.Namespace + "/" + s
			}
		case KindService, KindPassthrough:
			s = shortHost(n.Service)
		case KindUnknown:
			s = mesh.Unknown
			if len(namespaces) > 1 && n.Namespace != "" {
				s = n.Namespace + "/" + s
			}
		}
		out[n.ID] = s
	}
	return out
}

// shortHost leaves out the cluster domain.
func shortHost(host string) string {
	if host == "" {
		return "-"
	}
	return strings.TrimSuffix(host, ".svc."+mesh.DefaultDomain)
}

// printable makes a text from a label safe for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// number has three significant digits.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.01:
		return "<0.01"
	case v >= 999.5:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	digits := max(0, 2-int(math.Floor(math.Log10(v))))
	s := strconv.FormatFloat(v, 'f', min(digits, 2), 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func perSecond(v float64) string { return number(v) + "/s" }

func percent(share float64) string {
	switch p := share * 100; {
	case p == 0:
		return "0%"
	case p < 0.1:
		return "<0.1%"
	case p > 99.9 && p < 100:
		return ">99.9%"
	default:
		return strconv.FormatFloat(math.Round(p*10)/10, 'f', -1, 64) + "%"
	}
}

func millis(ms float64) string {
	if ms >= 1000 {
		return number(ms/1000) + " s"
	}
	return number(ms) + " ms"
}

func bytesPerSecond(v float64) string {
	if v == 0 {
		return "-"
	}
	unit := 0
	units := []string{"B/s", "kB/s", "MB/s", "GB/s", "TB/s"}
	for v >= 999.5 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	return fmt.Sprintf("%s %s", number(v), units[unit])
}

// seconds is a span of time without the parts that are 0 at its end: 1m, 1h30m.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second)).String()
	if strings.HasSuffix(d, "m0s") {
		d = strings.TrimSuffix(d, "0s")
	}
	if strings.HasSuffix(d, "h0m") {
		d = strings.TrimSuffix(d, "0m")
	}
	return d
}
