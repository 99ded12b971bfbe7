package meshtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Sample is one element of an instant vector.
type Sample struct {
	Labels map[string]string
	Time   time.Time
	Value  float64
}

// Query evaluates a PromQL expression now. Its answer must be a vector.
func (m *Mesh) Query(expr string) ([]Sample, error) {
	var result []struct {
		Metric map[string]string `json:"metric"`
		Value  [2]any            `json:"value"`
	}
	if err := m.API("query?"+url.Values{"query": {expr}}.Encode(), &result); err != nil {
		return nil, err
	}
	out := make([]Sample, 0, len(result))
	for _, r := range result {
		at, _ := r.Value[0].(float64)
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("value %v: %w", r.Value[1], err)
		}
		out = append(out, Sample{Labels: r.Metric, Time: time.UnixMilli(int64(at * 1000)), Value: v})
	}
	return out, nil
}

// API asks /api/v1/PATH of the mesh's Prometheus and decodes the answer's data;
// of a query, only the result.
func (m *Mesh) API(path string, data any) error {
	body, err := m.Get(m.Prometheus + "/api/v1/" + path)
	if err != nil {
		return err
	}
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %w in %.200s", path, err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	if strings.HasPrefix(path, "query") {
		var result struct {
			Result json.RawMessage `json:"result"`
		}
		if err := json.Unmarshal(answer.Data, &result); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		answer.Data = result.Result
	}
	if err := json.Unmarshal(answer.Data, data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Get fetches a URL of the machine. Error answers of an API are answers too.
func (m *Mesh) Get(address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: askFor, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", address, err)
	}
	if resp.StatusCode >= http.StatusInternalServerError || resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s answered %s: %.300s", address, resp.Status, body)
	}
	return body, nil
}

// WaitScraped waits until the store has scraped every proxy that runs since
// this call began, and no program is about to end. What a proxy had counted
// before the call, queries now see.
func (m *Mesh) WaitScraped() {
	m.t.Helper()
	since := time.Now()
	// timestamp() of anything but a selector is the time of the evaluation.
	const expr = `timestamp(up{job="kubernetes-pods"}) and (up{job="kubernetes-pods"} == 1)`
	Eventually(m.t, func() error {
		samples, err := m.Query(expr)
		if err != nil {
			return err
		}
		scraped := map[string]time.Time{}
		for _, s := range samples {
			scraped[s.Labels["pod"]] = time.UnixMilli(int64(s.Value * 1000))
		}
		for _, p := range m.Pods() {
			if p.Reason == "Terminating" {
				return fmt.Errorf("%s is ending", p.Name)
			}
			if at := scraped[p.Name]; !at.After(since) {
				return fmt.Errorf("%s was scraped last at %s", p.Name, at.Format(time.StampMilli))
			}
		}
		return nil
	})
}
