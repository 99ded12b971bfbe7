package manifest

import (
	"maps"
	"slices"
	"strings"
)

// nearest finds the name that was probably meant by word, or "".
func nearest[V any](word string, names map[string]V) string {
	best, bestDistance := "", max(len(word)/3, 1)+1
	lower := strings.ToLower(word)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if d := editDistance(lower, strings.ToLower(name)); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete or replace to make b of a.
// Long words are cut: they are no misspellings.
func editDistance(a, b string) int {
	const most = 64
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
