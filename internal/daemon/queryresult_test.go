package daemon

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

// What scripts read of `vitrine query -o json` is what they read of Prometheus.
func TestQueryResultJSON(t *testing.T) {
	at := time.UnixMilli(1700000000250)
	point := QueryPoint{Time: at, Value: 0.5}
	for _, c := range []struct {
		result QueryResult
		want   string
	}{
		{
			QueryResult{Type: "vector", Series: []QuerySeries{{Labels: map[string]string{"a": "b"}, Points: []QueryPoint{point}}}},
			`{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1700000000.25,"0.5"]}]}`,
		},
		{
			QueryResult{Type: "vector", Warnings: []string{"careful"}},
			`{"resultType":"vector","result":[],"warnings":["careful"]}`,
		},
		{
			QueryResult{Type: "matrix", Series: []QuerySeries{{Labels: map[string]string{}, Points: []QueryPoint{point, {Time: at.Add(time.Second), Value: math.NaN()}}}}},
			`{"resultType":"matrix","result":[{"metric":{},"values":[[1700000000.25,"0.5"],[1700000001.25,"NaN"]]}]}`,
		},
		{
			QueryResult{Type: "scalar", Series: []QuerySeries{{Points: []QueryPoint{{Time: at, Value: math.Inf(1)}}}}},
			`{"resultType":"scalar","result":[1700000000.25,"+Inf"]}`,
		},
		{
			QueryResult{Type: "string", Series: []QuerySeries{{Text: "x"}}, At: at},
			`{"resultType":"string","result":[1700000000.25,"x"]}`,
		},
	} {
		got, err := json.Marshal(&c.result)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.result.Type, got, err, c.want)
		}
	}
}
