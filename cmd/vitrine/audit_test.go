package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

func counted(pod, reporter, source, destination string, n float64) daemon.QuerySeries {
	return series(n, "pod", pod, "reporter", reporter, "source_app", source, "destination_app", destination)
}

// TestCompare holds the ledger's arithmetic, and what it says, against counters.
func TestCompare(t *testing.T) {
	const text = `{"edges":[{"source":"web-app","destination":"cart","count":4},{"source":"load","destination":"web-app","count":7}],"exact":true}`
	exact := []daemon.QuerySeries{
		counted("load-1", "source", "load", "web-app", 5),
		counted("load-1", "source", "load", "web-app", 2), // another status
		counted("web-1", "destination", "load", "web-app", 7),
		counted("web-1", "source", "web-app", "cart", 4),
		counted("cart-1", "destination", "web-app", "cart", 4),
		counted("cart-0", "destination", "web-app", "cart", 99), // of an earlier demo
	}
	outside := append([]daemon.QuerySeries{counted("web-1", "destination", "unknown", "web-app", 3)}, exact...)
	pods := map[string]bool{"load-1": true, "web-1": true, "cart-1": true}
	const header = "SOURCE    DESTINATION       SENT   CLIENT COUNTED   SERVER COUNTED\n"
	const own = "SOURCE   DESTINATION       SENT   CLIENT COUNTED   SERVER COUNTED\n" +
		"load     web-app              7                7                7   exact\n"
	const sentence = "the load sent 7, counted 7 at the client, 7 at the server\n"
	for name, tc := range map[string]struct {
		text    string
		series  []daemon.QuerySeries
		leftOut []string
		want    string
	}{
		"exact": {text, exact, nil, header +
			"load      web-app              7                7                7   exact\n" +
			"web-app   cart                 4                4                4   exact\n" + sentence},
		"one is lost": {text, exact[:4], nil, header +
			"load      web-app              7                7                7   exact\n" +
			"web-app   cart                 4                4                0   DIFFERS\n" + sentence},
		"on another edge": {text, append([]daemon.QuerySeries{counted("web-1", "source", "web-app", "unknown", 2)}, exact...), nil, header +
			"load      web-app              7                7                7   exact\n" +
			"web-app   cart                 4                4                4   exact\n" +
			"web-app   unknown              0                2                0   DIFFERS\n" + sentence},
		"from outside": {text, outside, nil, own +
			"only the load's own calls are compared, since 3 requests came from outside the mesh\n" + sentence},
		"left out": {text, exact, []string{"ratings", "currency"}, own +
			"only the load's own calls are compared, since programs were left out: ratings, currency\n" + sentence},
		"nothing": {`{"edges":[],"exact":true}`, nil, nil, "the load has sent nothing in this time, and nothing was counted\n"},
		"inexact": {strings.Replace(text, "true", "false", 1), exact, nil, own +
			"only the load's own calls are compared, since some were not answered as expected\n" + sentence},
	} {
		l := new(ledger)
		if err := json.Unmarshal([]byte(tc.text), l); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := compare(l, tc.series, pods, tc.leftOut).write(&out); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestLedgerReader: the last whole ledger counts, whatever else is written.
func TestLedgerReader(t *testing.T) {
	var r ledgerReader
	for _, step := range []struct {
		line string
		want bool // a ledger is there
	}{
		{"[load-1 load] sending\n", false},
		{"[web-1 web] ledger\n", false},
		{"[load-1 load] ledger {\"exact\":tr\n", false},
		{"[load-1 load] ledger {\"exact\":true}\n", true},
		{"[web-1 web] bye\n", true},
	} {
		if n, err := r.Write([]byte(step.line)); n != len(step.line) || err != nil {
			t.Fatal(n, err)
		}
		if l, ok := r.read(); ok != step.want || ok && !l.Exact {
			t.Errorf("after %q: %+v, %t", step.line, l, ok)
		}
	}
}

// TestAuditIsInterrupted: who presses Ctrl-C while the last figures are awaited
// gets no verdict, and no table of figures that are not in.
func TestAuditIsInterrupted(t *testing.T) {
	runDir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(runDir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, `[{"name":"load-1"}]`)
		}
	}))
	server.Listener.Close()
	server.Listener = ln
	server.Start()
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reader ledgerReader
	if _, err := reader.Write([]byte(`[load-1 load] ledger {"edges":[{"source":"load","destination":"web-app","count":7}],"exact":true}` + "\n")); err != nil {
		t.Fatal(err)
	}
	asked := 0
	audit := loadAudit{
		client: daemon.NewClient(runDir), ledger: &reader, settle: time.Minute, scrape: time.Second,
		count: func(context.Context) ([]daemon.QuerySeries, error) {
			if asked++; asked == 2 {
				cancel()
			}
			return nil, nil
		},
	}
	var out strings.Builder
	if err := audit.run(ctx, &out); err != nil {
		t.Error(err)
	}
	if want := "ended before the last figures were in: they are not compared\n"; out.String() != want || asked < 2 {
		t.Errorf("asked %d times, said %q, want %q", asked, out.String(), want)
	}
}
