package metricstore

import (
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	for expr, want := range map[string]string{
		`up`:                            "a b c",
		`sum by (job) (up)`:             "a b c",
		`(sum(up) by (job))`:            "a b c",
		`topk(3, up) + 0`:               "a b c",
		`sort(up)`:                      "b c a",
		`(sort_desc(up))`:               "b c a",
		`topk(3, up)`:                   "b c a",
		`bottomk by (x) (3, up)`:        "b c a",
		`sort_by_label(up, "job")`:      "b c a", // unknown here, and perhaps not to the server
		`a_function_of_victoria(up[5])`: "b c a",
	} {
		var vector []Sample
		for i, job := range []string{"b", "c", "a"} {
			vector = append(vector, Sample{Labels: map[string]string{"job": job, "x": "1"}, Value: float64(i)})
		}
		Arrange(expr, vector)
		var got []string
		for _, s := range vector {
			got = append(got, s.Labels["job"])
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
}
