package pod

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// userAgent lets programs and people tell probes in their logs from users, as
// kube-probe/VERSION does.
const userAgent = "kube-probe/vitrine"

// probeBodyBytes is how much of an answer is read (kubernetes
// pkg/probe/http: maxRespBodyLength).
const probeBodyBytes = 10 << 10

// withDefaults fills in Kubernetes' defaults for a probe's unset fields.
func withDefaults(p *mesh.Probe) mesh.Probe {
	q := *p
	if q.Period <= 0 {
		q.Period = 10 * time.Second
	}
	if q.Timeout <= 0 {
		q.Timeout = time.Second
	}
	q.SuccessThreshold = max(q.SuccessThreshold, 1)
	if q.FailureThreshold <= 0 {
		q.FailureThreshold = 3
	}
	return q
}

// ask runs one probe to its end; nil is success. exec is the program of an exec
// probe without its Args.
func ask(ctx context.Context, c Case, p *mesh.Probe, exec Program) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	switch {
	case p.HTTP != nil:
		return askHTTP(ctx, c, p.HTTP)
	case p.TCP != nil:
		conn, err := c.Dial(ctx, p.TCP.Port)
		if err != nil {
			return fmt.Errorf("tcp probe of port %d: %w", p.TCP.Port, err)
		}
		return conn.Close()
	case p.GRPC != nil:
		return askGRPC(ctx, c, p.GRPC)
	case len(p.Exec) > 0:
		exec.Args = p.Exec
		if err := c.Exec(ctx, exec); err != nil {
			return fmt.Errorf("exec probe %q: %w", p.Exec[0], err)
		}
		return nil
	}
	return errors.New("the probe asks nothing")
}

// askHTTP succeeds on 200 … 399. Redirects on the same host are followed, one to
// another host counts as success (kubernetes pkg/probe/http).
func askHTTP(ctx context.Context, c Case, p *mesh.HTTPProbe) error {
	scheme := "http"
	if p.Scheme == "HTTPS" || p.Scheme == "https" {
		scheme = "https"
	}
	target, err := url.Parse(p.Path)
	if err != nil {
		return fmt.Errorf("http probe: path %q: %w", p.Path, err)
	}
	target.Scheme, target.Host = scheme, net.JoinHostPort("localhost", strconv.Itoa(int(p.Port)))
	if target.Path == "" || target.Path[0] != '/' {
		target.Path = "/" + target.Path
	}
	transport := &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		// The kubelet does not verify either: the probe asks whether the
		// program answers, not who it is.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.Dial(ctx, p.Port)
		},
	}
	client := http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Hostname() != via[0].URL.Hostname() {
			return http.ErrUseLastResponse
		}
		if len(via) >= 10 {
			return errors.New("10 redirects")
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("http probe: %w", err)
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "*/*")
	if p.Host != "" {
		req.Host = p.Host
	}
	for _, h := range p.Headers {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("http probe of port %d: %w", p.Port, err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, probeBodyBytes); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("http probe of port %d: read answer: %w", p.Port, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("http probe of port %d: status %d", p.Port, resp.StatusCode)
	}
	return nil
}

// verdict is what a probe's answers so far amount to.
type verdict int8

const (
	undecided verdict = iota
	failing
	passing
)

// watcher runs one probe of one program again and again and tells when its
// verdict changes (kubernetes pkg/kubelet/prober/worker.go).
type watcher struct {
	probe   mesh.Probe // with defaults
	started time.Time  // of the program; InitialDelay counts from here
	verdict verdict    // at first: passing for liveness, failing for readiness
	ask     func(context.Context) error
	// changed is called from run with each new verdict; cause is the last
	// failure. After it returns false the watcher ends.
	changed func(v verdict, cause error) (more bool)
	// answered is called from run with each answer: nil, or why it is a failure.
	answered func(cause error)
}

func (w *watcher) run(ctx context.Context) {
	sleep(ctx, time.Until(w.started.Add(w.probe.InitialDelay)))
	tick := time.NewTicker(w.probe.Period)
	defer tick.Stop()
	last, streak := undecided, 0
	for ctx.Err() == nil {
		err := w.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		v, threshold := passing, w.probe.SuccessThreshold
		if err != nil {
			v, threshold = failing, w.probe.FailureThreshold
		}
		w.answered(err)
		if v != last {
			last, streak = v, 0
		}
		streak++
		if streak >= threshold && v != w.verdict {
			w.verdict = v
			if !w.changed(v, err) {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
