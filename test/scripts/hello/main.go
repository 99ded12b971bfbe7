// Command hello is the program of the stories: a server that says who it is, a
// client, and some ways to end. It knows nothing of a mesh.
//
//	hello serve [[IP:]PORT] serves HTTP (8080): "hello from NAME VERSION", /exit?code=N ends it, /pid, /env?name=X
//	hello get URL [N]       fetches URL N times (1) and prints each answer
//	hello poll URL PORT     fetches URL over and over, and serves how often that went well and how often not
//	hello relay URL PORT    serves what it gets from URL, asked anew each time
//	hello srv NAME          prints the service records of NAME, each with an address of its target
//	hello datagram ADDR     sends a datagram and prints the answer, or how it is refused
//	hello exit N [TEXT]     prints TEXT to standard error and exits with N
//	hello where             prints working directory, user id, terminal or not, and $GREETING
//	hello trap              prints the signals it gets; SIGTERM ends it with code 7
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	args := slices.Concat(os.Args[1:], []string{"", "", ""})
	switch args[0] {
	case "serve":
		serve(args[1])
	case "get":
		get(args[1], args[2])
	case "poll":
		poll(args[1], args[2])
	case "relay":
		relay(args[1], args[2])
	case "srv":
		srv(args[1])
	case "datagram":
		datagram(args[1])
	case "exit":
		code, _ := strconv.Atoi(args[1])
		fmt.Fprintln(os.Stderr, args[2])
		os.Exit(code)
	case "where":
		dir, _ := os.Getwd()
		info, _ := os.Stdin.Stat()
		fmt.Fprintf(os.Stdout, "dir %s uid %d terminal %t greeting %q\n", dir, os.Getuid(), info.Mode()&os.ModeCharDevice != 0, os.Getenv("GREETING"))
	case "trap":
		trap()
	default:
		fmt.Fprintln(os.Stderr, "usage: hello serve|get|poll|relay|srv|datagram|exit|where|trap")
		os.Exit(2)
	}
}

func serve(address string) {
	if address == "" {
		address = "8080"
	}
	if !strings.Contains(address, ":") {
		address = ":" + address
	}
	name, version := os.Getenv("NAME"), os.Getenv("VERSION")
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "hello from %s %s\n", name, version) })
	http.HandleFunc("GET /pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) })
	http.HandleFunc("GET /env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, os.Getenv(r.FormValue("name"))) })
	http.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, r.FormValue("name")) })
	http.HandleFunc("GET /exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	fmt.Fprintf(os.Stdout, "%s %s listens on %s\n", name, version, strings.TrimPrefix(address, ":"))
	server := &http.Server{Addr: address, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

func get(url, times string) {
	n, err := strconv.Atoi(times)
	if err != nil {
		n = 1
	}
	for range n {
		resp, err := http.Get(url)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Fprintf(os.Stdout, "%d %s", resp.StatusCode, body)
		if resp.StatusCode != http.StatusOK {
			os.Exit(1)
		}
	}
}

// poll fetches every few milliseconds, every other time with a new connection.
func poll(url, port string) {
	var ok, failed atomic.Int64
	last := new(atomic.Value)
	last.Store("")
	const limit = 30 * time.Second // a busy machine's pauses are no failures
	kept := &http.Client{Timeout: limit}
	fresh := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		for n := 0; ; n++ {
			client := kept
			if n%2 == 0 {
				client = fresh
			}
			resp, err := client.Get(url)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %s", resp.Status)
				}
			}
			if err == nil {
				ok.Add(1)
			} else {
				failed.Add(1)
				last.Store(err.Error())
			}
			time.Sleep(3 * time.Millisecond) // the pace of a caller, no wait for anything
		}
	}()
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "{\"ok\": %d, \"failed\": %d, \"last\": %q}\n", ok.Load(), failed.Load(), last.Load())
	})
	server := &http.Server{Addr: ":" + port, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

func relay(url, port string) {
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		resp, err := http.Get(url)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
	server := &http.Server{Addr: ":" + port, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

func srv(name string) {
	_, records, err := net.LookupSRV("", "", name)
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	for _, r := range records {
		addrs, err := net.LookupHost(r.Target)
		if err != nil {
			addrs = []string{err.Error()}
		}
		fmt.Fprintln(os.Stdout, r.Target, r.Port, addrs[0])
	}
}

func datagram(addr string) {
	c, err := net.Dial("udp", addr)
	if err == nil {
		defer c.Close()
		_, err = c.Write([]byte("hello"))
	}
	buf := make([]byte, 100)
	n := 0
	if err == nil {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		n, err = c.Read(buf)
	}
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	fmt.Fprintf(os.Stdout, "%s\n", buf[:n])
}

func trap() {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1)
	fmt.Fprintln(os.Stdout, "ready for signals")
	for sig := range c {
		fmt.Fprintln(os.Stdout, "got", sig)
		if sig == syscall.SIGTERM {
			os.Exit(7)
		}
	}
}
