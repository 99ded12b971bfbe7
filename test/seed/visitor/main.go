// Command visitor visits web-app: for each line of its standard input it makes
// a round of requests and prints how many got which status.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
)

func main() {
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := out.Encode(round()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// round asks for 40 pages, 16 slow ones and 16 failing ones, a few at a time.
func round() map[string]int {
	var mu sync.Mutex
	counts := map[string]int{}
	var all sync.WaitGroup
	ask := func(path string, n int) {
		all.Go(func() {
			for range n {
				status := "0"
				resp, err := http.Get("http://web-app:8080" + path)
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					status = strconv.Itoa(resp.StatusCode)
				}
				mu.Lock()
				counts[status]++
				mu.Unlock()
			}
		})
	}
	ask("/", 40)
	for range 8 {
		ask("/slow", 2)
		ask("/fail", 2)
	}
	all.Wait()
	return counts
}
