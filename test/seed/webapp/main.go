// Command webapp is the web-app of the seed article: it answers on :8080,
// slowly under /slow and with an error under /fail, and asks the service of its
// argument first, if there is one.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if len(os.Args) > 1 {
			resp, err := http.Get(os.Args[1])
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		switch r.URL.Path {
		case "/fail":
			http.Error(w, "as asked", http.StatusInternalServerError)
			return
		case "/slow":
			<-time.NewTimer(1200 * time.Millisecond).C
		}
		io.WriteString(w, "hello\n")
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":8080", nil))
	os.Exit(1)
}
