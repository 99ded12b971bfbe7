package meshtest

import (
	"bytes"
	"fmt"
	"net"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// ProxyMetrics reads what the proxies of all pods say of themselves now, as
// samples with the name in __name__ and the pod in pod. Histograms give their
// _sum and _count.
func (m *Mesh) ProxyMetrics() ([]Sample, error) {
	var out []Sample
	for _, pod := range m.Pods() {
		body, err := m.Get("http://" + net.JoinHostPort(pod.IP, "15020") + "/stats/prometheus")
		if err != nil {
			return nil, err
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", pod.Name, err)
		}
		for name, family := range families {
			for _, metric := range family.GetMetric() {
				out = append(out, samplesOf(name, pod.Name, metric)...)
			}
		}
	}
	return out, nil
}

func samplesOf(name, pod string, metric *dto.Metric) []Sample {
	sample := func(suffix string, v float64) Sample {
		labels := map[string]string{"__name__": name + suffix, "pod": pod}
		for _, l := range metric.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		return Sample{Labels: labels, Value: v}
	}
	switch {
	case metric.GetCounter() != nil:
		return []Sample{sample("", metric.GetCounter().GetValue())}
	case metric.GetGauge() != nil:
		return []Sample{sample("", metric.GetGauge().GetValue())}
	case metric.GetHistogram() != nil:
		h := metric.GetHistogram()
		return []Sample{sample("_sum", h.GetSampleSum()), sample("_count", float64(h.GetSampleCount()))}
	}
	return nil
}
