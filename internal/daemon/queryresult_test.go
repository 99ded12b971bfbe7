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

func TestFormatValue(t *testing.T) {
	for want, v := range map[string]float64{
		"0": 0, "1000000": 1e6, "1234567": 1234567, "-1234567.125": -1234567.125, "0.00001": 1e-5, "0.000001": 1e-6, "9.9e-07": 9.9e-7,
		"100000000000000000000": 1e20, "1e+21": 1e21, "-1e+21": -1e21, "NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1),
	} {
		if got, err := json.Marshal(QueryPoint{Time: time.UnixMilli(0), Value: v}); err != nil || string(got) != `[0,"`+want+`"]` {
			t.Errorf("%v is written as %s, %v, want %s", v, got, err, want)
		}
	}
}
