//go:build interop

package interop

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// checkChange adds a service to the files of the mesh while Envoy runs, and takes
// it away under load: Envoy follows, no request for another service notices, and
// no route ever names a cluster that is not there.
func checkChange(t *testing.T, m *meshRun, e *envoy) {
	t.Helper()
	const shared = "240.240.255.1:8080" // the listener of all HTTP ports 8080
	write := func(more ...string) {
		t.Helper()
		if err := os.WriteFile(m.file, []byte(shop(t, more...)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("late")
	meshtest.Eventually(t, func() error {
		if got, err := e.ask(false, shared, "late:8080"); got != "200 late HTTP/1.1 late:8080" || err != nil {
			return fmt.Errorf("late is not there: %q, %w", got, err)
		}
		return nil
	})

	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, name := range []string{"web", "late", "late"} {
		load.Go(func() {
			for asked := 0; ; asked++ {
				select {
				case <-stop:
					if asked == 0 {
						t.Errorf("no request for %s was made", name)
					}
					return
				default:
				}
				got, err := e.ask(false, shared, name+":8080")
				if want := "200 web HTTP/1.1 web:8080"; name == "web" && (got != want || err != nil) {
					t.Errorf("while another service goes: %q, %v; want %q", got, err, want)
					return
				}
			}
		})
	}
	write()
	meshtest.Eventually(t, func() error {
		if got, err := e.ask(false, shared, "late:8080"); !strings.HasPrefix(got, "404 ") || err != nil {
			return fmt.Errorf("late is still there: %q, %w", got, err)
		}
		text, err := get(t, e.admin+"/clusters")
		if err == nil && strings.Contains(text, "late.default") {
			err = errors.New("the clusters of late are still there")
		}
		return err
	})
	close(stop)
	load.Wait()
	text, err := get(t, e.admin+"/stats?filter=no_cluster$")
	if err != nil || text == "" {
		t.Fatalf("no_cluster: %q, %v", text, err)
	}
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, ": 0\n") {
			t.Errorf("a route named a cluster that was gone: %s", strings.TrimSpace(line))
		}
	}
}
