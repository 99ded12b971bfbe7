package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// maxWidth is how wide a table of series may be before it is made narrower. It
// does not depend on the terminal, so that what is copied from one looks the same
// in another.
const maxWidth = 110

// nameLabel is the label that holds a metric's name.
const nameLabel = "__name__"

// printVector prints the last value of each series. A column for each label is
// easiest to read, but a raw series of Istio's has more than thirty labels: if
// the table is too wide, the labels that all series share are told once, above;
// and if it still is, each series is written as PromQL does.
func printVector(w io.Writer, series []daemon.QuerySeries) error {
	names := labelNames(series)
	if rows := vectorRows(series, names); width(rows) <= maxWidth {
		return table(w, rows)
	}
	common := map[string]string{}
	if len(series) > 1 {
		common = commonLabels(series, names)
	}
	if len(common) > 0 {
		fmt.Fprintln(w, seriesName(common, "all are  ", "    "))
		names = slices.DeleteFunc(names, func(n string) bool { _, ok := common[n]; return ok })
		if rows := vectorRows(series, names); width(rows) <= maxWidth {
			return table(w, rows)
		}
	}
	values := make([]string, 0, len(series))
	most := len("VALUE")
	for i := range series {
		values = append(values, lastValue(&series[i]))
		most = max(most, utf8.RuneCountInString(values[i]))
	}
	indent := strings.Repeat(" ", most+3)
	fmt.Fprintf(w, "%-*s   SERIES\n", most, "VALUE")
	for i := range series {
		own := maps.Clone(series[i].Labels)
		maps.DeleteFunc(own, func(n, _ string) bool { _, ok := common[n]; return ok })
		fmt.Fprintln(w, seriesName(own, fmt.Sprintf("%-*s   ", most, values[i]), indent+"    "))
	}
	return nil
}

// printLines prints the last value of each series for programs that read lines: a
// table as printVector does if it is not too wide, else each series whole in a line
// of its own.
func printLines(w io.Writer, series []daemon.QuerySeries) error {
	if rows := vectorRows(series, labelNames(series)); width(rows) <= maxWidth {
		return table(w, rows)
	}
	rows := [][]string{{"VALUE", "SERIES"}}
	for i := range series {
		labels := series[i].Labels
		var parts []string
		for _, n := range slices.Sorted(maps.Keys(labels)) {
			if n != nameLabel {
				parts = append(parts, n+"="+strconv.Quote(labels[n]))
			}
		}
		rows = append(rows, []string{lastValue(&series[i]), labels[nameLabel] + "{" + strings.Join(parts, ", ") + "}"})
	}
	return table(w, rows)
}

// vectorRows is a table of the named labels and the values.
func vectorRows(series []daemon.QuerySeries, names []string) [][]string {
	rows := [][]string{append(slices.Clone(names), "VALUE")}
	for i := range series {
		row := make([]string, 0, len(names)+1)
		for _, n := range names {
			row = append(row, printable(series[i].Labels[n]))
		}
		rows = append(rows, append(row, lastValue(&series[i])))
	}
	return rows
}

// printable is a label's value for a cell of a table: names come from others, and
// what a terminal would obey is shown as Go writes it.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func lastValue(s *daemon.QuerySeries) string {
	if len(s.Points) == 0 {
		return s.Text
	}
	return formatValue(s.Points[len(s.Points)-1].Value)
}

// labelNames lists the labels that any series has, sorted.
func labelNames(series []daemon.QuerySeries) []string {
	all := map[string]bool{}
	for _, s := range series {
		for n := range s.Labels {
			all[n] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// commonLabels are those that have the same value in all series.
func commonLabels(series []daemon.QuerySeries, names []string) map[string]string {
	common := map[string]string{}
	for _, n := range names {
		value, ok := series[0].Labels[n]
		if ok && !slices.ContainsFunc(series, func(s daemon.QuerySeries) bool { v, ok := s.Labels[n]; return !ok || v != value }) {
			common[n] = value
		}
	}
	return common
}

// seriesName writes labels as PromQL does, name{label="value", …}, after first,
// and in lines of maxWidth of which the further ones begin with indent.
func seriesName(labels map[string]string, first, indent string) string {
	line := first + labels[nameLabel] + "{"
	var text strings.Builder
	names := slices.Sorted(maps.Keys(labels))
	names = slices.DeleteFunc(names, func(n string) bool { return n == nameLabel })
	for i, n := range names {
		part := n + "=" + strconv.Quote(labels[n])
		if i < len(names)-1 {
			part += ","
		}
		open := strings.HasSuffix(line, "{")
		switch {
		case open:
			line += part
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(part) <= maxWidth-1: // a brace may follow
			line += " " + part
		default:
			text.WriteString(line + "\n")
			line = indent + part
		}
	}
	return text.String() + line + "}"
}

// width is that of the table of the rows.
func width(rows [][]string) int {
	columns := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			columns[i] = max(columns[i], utf8.RuneCountInString(cell))
		}
	}
	sum := columnGap * (len(columns) - 1)
	for _, n := range columns {
		sum += n
	}
	return sum
}

// formatValue writes counts in full and other values with six digits; large ones
// are counts of bytes, and not rounded. Exponents are as in Prometheus' answers.
func formatValue(v float64) string {
	if size := math.Abs(v); size >= 1e21 || size < 1e6 && v != math.Trunc(v) {
		if rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64); err == nil {
			v = rounded
		}
	}
	return daemon.FormatValue(v)
}
