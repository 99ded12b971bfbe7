package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Query is one PromQL question from the command line.
type Query struct {
	URL   string // base URL of a Prometheus-compatible server; "" is the mesh's own
	Expr  string
	At    time.Time     // instant, or end of the range
	Range time.Duration // 0 asks for one instant
	Step  time.Duration // 0 chooses a 60th of Range, at least a second
}

// QueryResult is the answer: the series of a vector or matrix, or one series
// without labels for a scalar or string.
type QueryResult struct {
	Type     string        `json:"resultType"`
	Series   []QuerySeries `json:"result"`
	Warnings []string      `json:"warnings,omitempty"`
}

// QuerySeries is one labelled row of points in time order.
type QuerySeries struct {
	Labels map[string]string `json:"metric"`
	Points []QueryPoint      `json:"values,omitempty"`
	Text   string            `json:"text,omitempty"` // a string result
}

// QueryPoint is one value at one time.
type QueryPoint struct {
	Time  time.Time
	Value float64
}

// MarshalJSON writes [unix seconds, "value"] as Prometheus does, so that NaN
// and infinities survive.
func (p QueryPoint) MarshalJSON() ([]byte, error) {
	return json.Marshal([2]any{float64(p.Time.UnixMilli()) / 1000, strconv.FormatFloat(p.Value, 'g', -1, 64)})
}

// RunQuery asks the mesh of runDir, or q.URL.
func RunQuery(ctx context.Context, runDir string, q Query) (*QueryResult, error) {
	base, err := queryURL(ctx, runDir, q.URL)
	if err != nil {
		return nil, err
	}
	form := url.Values{"query": {q.Expr}}
	path := "/api/v1/query"
	if q.Range > 0 {
		if q.Step <= 0 {
			q.Step = max(q.Range/60, time.Second).Truncate(time.Second)
		}
		path = "/api/v1/query_range"
		form.Set("start", promTime(q.At.Add(-q.Range)))
		form.Set("end", promTime(q.At))
		form.Set("step", strconv.FormatFloat(q.Step.Seconds(), 'f', -1, 64))
	} else {
		form.Set("time", promTime(q.At))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("make query: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", base, err)
	}
	defer resp.Body.Close()
	return decodeResult(resp.Body)
}

// queryURL is the server that answers queries for the mesh of runDir.
func queryURL(ctx context.Context, runDir, external string) (string, error) {
	if external != "" {
		return strings.TrimSuffix(external, "/"), nil
	}
	s, err := NewClient(runDir).Status(ctx)
	if err != nil {
		return "", err
	}
	return s.Prometheus, nil
}

func promTime(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// rawPoint is [unix seconds, "value"].
type rawPoint [2]json.RawMessage

func (r rawPoint) decode() (QueryPoint, error) {
	var seconds float64
	if err := json.Unmarshal(r[0], &seconds); err != nil {
		return QueryPoint{}, fmt.Errorf("time of a point: %w", err)
	}
	var text string
	if err := json.Unmarshal(r[1], &text); err != nil {
		return QueryPoint{}, fmt.Errorf("value of a point: %w", err)
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return QueryPoint{}, fmt.Errorf("value of a point: %w", err)
	}
	return QueryPoint{Time: time.UnixMilli(int64(math.Round(seconds * 1000))), Value: value}, nil
}

func decodeResult(r io.Reader) (*QueryResult, error) {
	var body struct {
		Status    string
		ErrorType string
		Error     string
		Warnings  []string
		Data      struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.NewDecoder(r).Decode(&body); err != nil {
		return nil, fmt.Errorf("read the query's answer: %w (is this a Prometheus-compatible server?)", err)
	}
	if body.Status != "success" {
		return nil, errors.New(body.Error)
	}
	out := &QueryResult{Type: body.Data.ResultType, Series: []QuerySeries{}, Warnings: body.Warnings}
	switch out.Type {
	case "vector", "matrix":
		return out, decodeSeries(body.Data.Result, out)
	case "scalar":
		var raw rawPoint
		if err := json.Unmarshal(body.Data.Result, &raw); err != nil {
			return nil, fmt.Errorf("read a scalar: %w", err)
		}
		p, err := raw.decode()
		out.Series = append(out.Series, QuerySeries{Labels: map[string]string{}, Points: []QueryPoint{p}})
		return out, err
	case "string":
		var raw [2]any
		if err := json.Unmarshal(body.Data.Result, &raw); err != nil {
			return nil, fmt.Errorf("read a string: %w", err)
		}
		out.Series = append(out.Series, QuerySeries{Labels: map[string]string{}, Text: fmt.Sprint(raw[1])})
		return out, nil
	}
	return nil, fmt.Errorf("unknown result type %q", out.Type)
}

func decodeSeries(data json.RawMessage, out *QueryResult) error {
	var raw []struct {
		Metric map[string]string
		Value  *rawPoint
		Values []rawPoint
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf("read series: %w", err)
	}
	for _, r := range raw {
		s := QuerySeries{Labels: r.Metric}
		if r.Value != nil {
			r.Values = append(r.Values, *r.Value)
		}
		for _, v := range r.Values {
			p, err := v.decode()
			if err != nil {
				return err
			}
			s.Points = append(s.Points, p)
		}
		out.Series = append(out.Series, s)
	}
	return nil
}
