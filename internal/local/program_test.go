package local_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// programEnv makes the test binary one of the programs below.
const programEnv = "VITRINE_TEST_PROGRAM"

// runProgram is an unmodified program of a user, as far as Vitrine is concerned.
func runProgram(args []string) int {
	switch args[0] {
	case "exit":
		code, _ := strconv.Atoi(args[1])
		fmt.Fprintln(os.Stdout, "leaving with", code)
		return code
	case "serve":
		return serve(args[1], syscall.SIGTERM)
	case "load":
		return load(args[1])
	case "grpc":
		return serveGRPC(args[1])
	case "signals":
		return signals()
	case "raise":
		n, _ := strconv.Atoi(args[1])
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
		signal.Reset(syscall.Signal(n))
		syscall.Kill(os.Getpid(), syscall.Signal(n))
		select {}
	case "check": // an exec probe: is the file there?
		if _, err := os.Stat(args[1]); err != nil {
			return 1
		}
		return 0
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		return serve(args[1], syscall.SIGUSR1)
	case "leave-child":
		return leaveChild()
	}
	return 64
}

// serve answers on a port until the signal comes: / says who it is, /fail makes it
// unhealthy, /heal healthy again, /exit?code=N ends it.
func serve(port string, end os.Signal) int {
	var sick atomic.Bool
	code := make(chan int, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "%s %d %s", host, os.Getuid(), os.Getenv("POD_IP"))
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/fail", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	mux.HandleFunc("/heal", func(http.ResponseWriter, *http.Request) { sick.Store(false) })
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("code"))
		code <- n
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.FormValue("for"))
		t := time.NewTimer(d)
		<-t.C
		fmt.Fprint(w, "done")
	})
	term, stop := signal.NotifyContext(context.Background(), end) // before it is taken for ready
	defer stop()
	ln, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln)
	fmt.Fprintln(os.Stdout, "serving on", port)
	select {
	case n := <-code:
		return n
	case <-term.Done():
		fmt.Fprintln(os.Stdout, "terminated")
		srv.Shutdown(context.Background())
		return 0
	}
}

func serveGRPC(port string) int {
	ln, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return 1
	}
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	h.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, h)
	if srv.Serve(ln) != nil {
		return 1
	}
	return 0
}

// signals reports each signal it gets; SIGTERM ends it with 7.
func signals() int {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGTERM)
	fmt.Fprintln(os.Stdout, "waiting")
	for s := range c {
		fmt.Fprintln(os.Stdout, "got", s)
		if s == syscall.SIGTERM {
			return 7
		}
	}
	return 0
}

// leaveChild starts a child that outlives it and says the child's number.
func leaveChild() int {
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		return 1
	}
	fmt.Fprintln(os.Stdout, "child", p.Pid)
	return 3
}

// load asks for a URL again and again until SIGTERM, on connections that it keeps
// and on new ones, and says how many requests failed.
func load(url string) int {
	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	sent, failed := 0, 0
	for n := 0; term.Err() == nil; n++ {
		req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
		if err != nil {
			return 1
		}
		req.Close = n%3 == 0
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
		}
		switch {
		case err == nil:
			if sent++; sent == 1 {
				fmt.Fprintln(os.Stdout, "loading")
			}
		case sent > 0: // before, the service is not there yet
			failed++
			fmt.Fprintln(os.Stdout, "failed:", err)
		}
		t := time.NewTimer(2 * time.Millisecond)
		<-t.C
	}
	fmt.Fprintf(os.Stdout, "sent %v failed %d\n", sent > 100, failed)
	return 0
}
