package sidecar

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// finalTimeout bounds how long the last metrics may hold up the end of a pod.
const finalTimeout = time.Second

// sendFinal hands the last metrics to the control plane, which could not scrape
// what happened since its last visit. It is best effort.
func (s *sidecar) sendFinal(ctx context.Context, rec *telemetry.Recorder) {
	if err := s.postFinal(ctx, rec); err != nil {
		s.log.WarnContext(ctx, "the last metrics were not handed over", "error", err)
	}
}

func (s *sidecar) postFinal(ctx context.Context, rec *telemetry.Recorder) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalTimeout)
	defer cancel()
	var body bytes.Buffer
	if err := rec.WriteMetrics(&body, telemetry.FormatOpenMetrics); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", s.b.ControlSocket)
		},
	}
	target := "http://control/v1/final?pod=" + url.QueryEscape(s.b.Workload.Key())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, &body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", telemetry.FormatOpenMetrics.ContentType())
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("post: the control plane answered %s", resp.Status)
	}
	return nil
}
