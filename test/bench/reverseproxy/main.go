// Command reverseproxy is the net/http peer of the comparison: ReverseProxy
// with a tuned transport and no telemetry.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:29084", "address to listen on")
	origin := flag.String("origin", "127.0.0.1:29079", "address of the origin")
	flag.Parse()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: *origin})
	proxy.Transport = &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, IdleConnTimeout: time.Hour, DisableCompression: true}
	server := &http.Server{Addr: *listen, Handler: proxy, ReadHeaderTimeout: time.Minute}
	if err := server.ListenAndServe(); err != nil {
		fmt.Fprintln(os.Stderr, "reverseproxy:", err)
		os.Exit(1)
	}
}
