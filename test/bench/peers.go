package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The load and the origin share core 1; every proxy has core 0.
const (
	proxyCore = "0"
	loadCore  = "1"
)

const originAddr = "127.0.0.1:29079"

// proc is one server of the comparison.
type proc struct {
	name string
	addr string // "" for the origin: no hop
	cmd  *exec.Cmd
	log  string
}

func (p *proc) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-done
	}
}

// start runs a server pinned to a core and waits until it listens.
func start(ctx context.Context, dir, name, addr, core string, argv ...string) (*proc, error) {
	if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("start %s: something else listens on %s", name, addr)
	}
	log := filepath.Join(dir, name+".log")
	f, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", core}, argv...)...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &proc{name: name, addr: addr, cmd: cmd, log: log}
	deadline := time.Now().Add(15 * time.Second)
	for {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
			return p, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			p.stop()
			text, _ := os.ReadFile(log)
			return nil, fmt.Errorf("%s does not listen on %s: %w\n%s", name, addr, err, text)
		}
		time.Sleep(50 * time.Millisecond) // peers of five kinds have only this in common: one day they accept
	}
}

// startOrigin serves 1 KiB with nginx.
func startOrigin(ctx context.Context, dir string) (*proc, error) {
	conf := nginxConf(dir, "origin", "server { listen "+originAddr+"; location / { return 200 \""+strings.Repeat("x", 1024)+"\"; } }")
	path, err := writeFile(dir, "origin.conf", conf)
	if err != nil {
		return nil, err
	}
	return start(ctx, dir, "origin", originAddr, loadCore, "nginx", "-c", path)
}

// startProxies starts ours and every peer that is there; the first is ours.
func startProxies(ctx context.Context, bin, dir string) ([]*proc, error) {
	nginx, err := writeFile(dir, "nginx.conf", nginxConf(dir, "nginx",
		"upstream o { server "+originAddr+"; keepalive 1100; keepalive_requests 1000000000; }\n"+
			"server { listen 127.0.0.1:29082; location / { proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection \"\";"+
			" proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-Proto http; } }"))
	if err != nil {
		return nil, err
	}
	haproxy, err := writeFile(dir, "haproxy.cfg", haproxyConf)
	if err != nil {
		return nil, err
	}
	envoy, err := writeFile(dir, "envoy.yaml", envoyConf)
	if err != nil {
		return nil, err
	}
	type peer struct {
		name, addr string
		argv       []string
	}
	peers := []peer{
		{"vitrine", "127.0.0.1:29080", []string{filepath.Join(bin, "hop"), "-listen", "127.0.0.1:29080", "-origin", originAddr}},
		{"haproxy", "127.0.0.1:29081", []string{"haproxy", "-db", "-f", haproxy}},
		{"nginx", "127.0.0.1:29082", []string{"nginx", "-c", nginx}},
		{"envoy", "127.0.0.1:29083", []string{filepath.Join(bin, "envoy"), "-c", envoy, "--concurrency", "1", "-l", "error"}},
		{"reverseproxy", "127.0.0.1:29084", []string{filepath.Join(bin, "reverseproxy"), "-listen", "127.0.0.1:29084", "-origin", originAddr}},
		{"bytecopy", "127.0.0.1:29085", []string{filepath.Join(bin, "bytecopy"), "-listen", "127.0.0.1:29085", "-origin", originAddr}},
	}
	var out []*proc
	for _, p := range peers {
		if _, err := exec.LookPath(p.argv[0]); err != nil {
			fmt.Fprintf(os.Stderr, "note: %s is not there, its row is left out\n", p.argv[0])
			continue
		}
		started, err := start(ctx, dir, p.name, p.addr, proxyCore, p.argv...)
		if err != nil {
			return out, err
		}
		out = append(out, started)
	}
	return out, nil
}

func writeFile(dir, name, content string) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}

// nginxConf has no access log, one worker, and private paths, so that any user
// may run it.
func nginxConf(dir, name, server string) string {
	base := filepath.Join(dir, name)
	return "daemon off; master_process off; worker_processes 1; pid " + base + ".pid; error_log " + base + ".err error;\n" +
		"events { worker_connections 4096; }\nhttp { access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;\n" +
		"client_body_temp_path " + base + ".body; proxy_temp_path " + base + ".proxy; fastcgi_temp_path " + base + ".f; uwsgi_temp_path " + base + ".u; scgi_temp_path " + base + ".s;\n" +
		server + "\n}\n"
}

const haproxyConf = `global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
  unique-id-format %{+X}o\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id
frontend in
  bind 127.0.0.1:29081
  http-request set-header X-Forwarded-Proto http
  default_backend out
backend out
  server o ` + originAddr + ` maxconn 4096
`

const envoyConf = `static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 29083}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: "/"}, route: {cluster: o}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: o
    type: STATIC
    circuit_breakers: {thresholds: [{max_connections: 8192, max_pending_requests: 8192, max_requests: 8192}]}
    load_assignment:
      cluster_name: o
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 29079}}}}]}]
`
