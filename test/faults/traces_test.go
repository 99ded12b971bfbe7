package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// wantOnly fails the test unless exactly what belongs to pods exists: three
// processes for each, their sockets and directories and the control plane's
// sockets, and nothing on the machine itself.
func (w *world) wantOnly(pods []daemon.Pod) {
	w.t.Helper()
	meshtest.Eventually(w.t, func() error {
		return errors.Join(w.processesOf(pods), w.socketsOf(pods), w.outside(pods))
	})
}

// podDir is what the control plane keeps of a pod.
func (w *world) podDir(p *daemon.Pod) string {
	return filepath.Join(w.RunDir, "pods", p.Namespace, p.Name)
}

// processesOf says what is missing or left of the programs, proxies and agents.
func (w *world) processesOf(pods []daemon.Pod) error {
	want := map[int]string{}
	for i := range pods {
		p := &pods[i]
		if len(p.PIDs) == 0 {
			return fmt.Errorf("no process of %s is known", p.Name)
		}
		want[p.ProxyPID], want[p.PIDs[0]] = p.Name+"'s proxy", p.Name
	}
	all, err := w.Processes()
	errs := []error{err}
	agents := 0
	for _, p := range all {
		switch {
		case want[p.PID] != "":
			delete(want, p.PID)
		case strings.HasSuffix(p.Args, " agent"):
			agents++
		default:
			errs = append(errs, fmt.Errorf("process %d is left: %s", p.PID, p.Args))
		}
	}
	if agents != len(pods) {
		errs = append(errs, fmt.Errorf("%d agents of %d pods", agents, len(pods)))
	}
	for pid, what := range want {
		errs = append(errs, fmt.Errorf("process %d is missing: %s", pid, what))
	}
	return errors.Join(errs...)
}

// socketsOf says what is left of sockets.
func (w *world) socketsOf(pods []daemon.Pod) error {
	want := map[string]bool{filepath.Join(w.RunDir, "control.sock"): true, filepath.Join(w.RunDir, "xds.sock"): true}
	for i := range pods {
		want[filepath.Join(w.podDir(&pods[i]), "pod.sock")] = true
	}
	var errs []error
	err := filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 && !want[path] {
			errs = append(errs, fmt.Errorf("socket %s is left", path))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// outside says what differs of what is left outside of processes: directories of
// pods, and network interfaces of the machine.
func (w *world) outside(pods []daemon.Pod) error {
	var want []string
	for i := range pods {
		want = append(want, w.podDir(&pods[i]))
	}
	slices.Sort(want)
	var errs []error
	if dirs, _ := filepath.Glob(filepath.Join(w.RunDir, "pods", "*", "*")); !slices.Equal(dirs, want) { // Glob sorts
		errs = append(errs, fmt.Errorf("directories %v, want %v", dirs, want))
	}
	if now := links(w.t); !slices.Equal(now, w.links) {
		errs = append(errs, fmt.Errorf("network interfaces %v, before %v", now, w.links))
	}
	return errors.Join(errs...)
}

// links are the names of the machine's network interfaces.
func links(t *testing.T) []string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return names
}
