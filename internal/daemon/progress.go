package daemon

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

const (
	// patience is how long a workload may be on its way before it is said what
	// keeps it.
	patience = 10 * time.Second
	// giveUp is how long programs may fail without any progress before waiting for
	// them ends. It is longer than the first back-off of 10 s, so each of them has
	// had a try after the others were there.
	giveUp = 15 * time.Second
	// wordsOfPod is how many of a failing program's last lines are shown.
	wordsOfPod = 5
)

// narrator tells a person what becomes of the workloads of a mesh, each thing
// once. It belongs to one goroutine.
type narrator struct {
	out  io.Writer
	tail func(pod string) string // last lines of a pod's programs, may be ""
	mute bool                    // no more counts, only what goes wrong

	all    int                    // workloads at the last time
	said   map[int]bool           // how many of these were said to be ready
	last   int                    // that number, if it was the last thing said; else -1
	again  bool                   // a pod has recovered: what was said before it failed may be said again
	pods   map[string]podNews     // of those that are there
	unmade map[WorkloadSet]string // of which sets it was said that no pod can be made, and why
	moved  time.Time              // when more workloads were ready than ever before
	most   int                    // that were ready at one time
}

func newNarrator(out io.Writer, tail func(pod string) string) *narrator {
	return &narrator{out: out, tail: tail, moved: time.Now()}
}

// podNews is what a narrator remembers of a pod.
type podNews struct {
	since time.Time // when it was first seen not to be ready; zero if it is
	told  string    // the reason told last; "" is none
	fine  time.Time // since when all is well although a reason was told; zero if it is not
}

// tell says what is new; s is from before pods. That all are ready is not said until
// the proxies know it.
func (n *narrator) tell(s *Status, pods []Pod) {
	now := time.Now()
	// A program that fails over and over is ready for a moment each time: that is
	// no progress.
	ready, all := count(pods)
	if ready > n.most {
		n.most, n.moved = ready, now
	}
	if ready < all || s.Known && s.Ready == s.Workloads {
		n.tellCount(ready, all)
	}
	unmade := make(map[WorkloadSet]string, len(s.NotMade))
	for _, set := range s.NotMade {
		if n.unmade[set.WorkloadSet] != set.Reason {
			n.last = -1
			fmt.Fprintln(n.out, set)
		}
		unmade[set.WorkloadSet] = set.Reason
	}
	n.unmade = unmade
	before := n.pods
	n.pods = make(map[string]podNews, len(pods)) // a pod of the name of one that is gone is another
	for i := range pods {
		p := &pods[i]
		key := p.Namespace + "/" + p.Name
		n.pods[key] = n.tellPod(p, before[key], now)
	}
}

// tellPod says what is new of a pod, and returns what there is to remember.
func (n *narrator) tellPod(p *Pod, was podNews, now time.Time) podNews {
	if p.fine() || p.Status == pod.ReasonTerminating {
		was.since = time.Time{}
		return n.recovers(was, now)
	}
	was.fine = time.Time{}
	if was.since.IsZero() {
		was.since = now
	}
	reason := "on its way"
	switch {
	case p.failing():
		reason = p.Status
	case now.Sub(was.since) < patience:
		return was
	}
	if was.told != reason {
		was.told, n.last = reason, -1
		fmt.Fprintln(n.out, n.describe(p))
	}
	return was
}

// recovers forgets what was said of a pod that has been fine for a while: should it
// fail again, that is news, as is that all are ready now.
func (n *narrator) recovers(was podNews, now time.Time) podNews {
	switch {
	case was.told == "":
	case was.fine.IsZero():
		was.fine = now
	case now.Sub(was.fine) >= patience:
		n.again = true
		return podNews{}
	}
	return was
}

// tellCount says how many workloads are ready of those that are to be, each state
// once: a program that fails over and over is ready for a moment each time.
func (n *narrator) tellCount(ready, all int) {
	if all != n.all {
		n.all, n.said = all, map[int]bool{}
	}
	if n.again && ready != n.last {
		delete(n.said, ready)
	}
	n.again = false
	if n.said[ready] || all == 0 || n.mute {
		return
	}
	n.said[ready], n.last = true, ready
	fmt.Fprintf(n.out, "ready %d/%d\n", ready, all)
}

// count is how many pods are ready or have ended well, of how many. Those that
// failed for good were replaced, or will not be.
func count(pods []Pod) (ready, all int) {
	for i := range pods {
		if pods[i].Phase == string(pod.Failed) {
			continue
		}
		all++
		if pods[i].fine() {
			ready++
		}
	}
	return ready, all
}

// describe says why a pod is not ready, with the last lines of its programs.
func (n *narrator) describe(p *Pod) string {
	text := fmt.Sprintf("%s/%s is not ready: %s", p.Namespace, p.Name, p.why())
	if words := n.tail(p.Namespace + "/" + p.Name); words != "" {
		text += "\n  its last lines:\n    " + strings.ReplaceAll(words, "\n", "\n    ")
	}
	return text
}

// hopeless reports whether all that is not ready fails, and nothing became ready
// for a while: waiting longer seems of no use.
func (n *narrator) hopeless(pods []Pod) bool {
	failing := 0
	for i := range pods {
		switch {
		case pods[i].failing():
			failing++
		case !pods[i].fine():
			return false
		}
	}
	return failing > 0 && time.Since(n.moved) > giveUp
}

// fine reports whether nothing is amiss: ready, or ended well.
func (p *Pod) fine() bool { return p.Ready || p.Phase == string(pod.Succeeded) }

// failing reports whether a program of the pod, or its proxy, ended in failure.
func (p *Pod) failing() bool {
	if p.fine() {
		return false
	}
	word := p.Status[strings.LastIndexByte(p.Status, ':')+1:]
	switch word {
	case pod.ReasonCrashLoop, pod.ReasonError, pod.ReasonStartError, pod.ReasonProxyError, string(pod.Failed):
		return true
	}
	return false
}

// why is the reason that a pod is not ready, in one line.
func (p *Pod) why() string {
	parts := []string{p.Status}
	for i := range p.InitContainers {
		if c := &p.InitContainers[i]; c.ExitCode != nil && *c.ExitCode != 0 {
			parts = append(parts, c.troubles()...)
		}
	}
	for i := range p.Containers {
		if c := &p.Containers[i]; !c.Ready {
			parts = append(parts, c.troubles()...)
		}
	}
	if len(parts) == 1 && p.Message != "" {
		parts = append(parts, p.Message)
	}
	return strings.Join(parts, "; ")
}

// troubles is what is known of why a program does not run.
func (c *Container) troubles() (parts []string) {
	if c.ExitCode != nil {
		parts = append(parts, fmt.Sprintf("%s ended with exit code %d", c.Name, *c.ExitCode))
	}
	if text := cmp.Or(c.LastError, c.Message); text != "" {
		parts = append(parts, text)
	}
	return parts
}

// narrate tells progress until ctx ends, and closes m.settled when everything
// that was wanted at the start runs.
func (m *Mesh) narrate(ctx context.Context) error {
	n := newNarrator(m.io.Progress, func(target string) string {
		var b bytes.Buffer
		o := local.LogOptions{Targets: []string{target}, Tail: wordsOfPod}
		_ = m.local.Logs(ctx, o, func(_, _ string, line []byte) error { // without a log there is nothing to show
			b.Write(line)
			b.WriteByte('\n')
			return nil
		})
		return lastWords(b.String())
	})
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	settled := false
	for {
		s := m.Status()
		n.tell(&s, m.pods())
		if s.Settled && !settled {
			settled = true
			close(m.settled)
			if n.mute = m.io.Demo; !n.mute {
				m.welcome(&s)
			}
			tick.Reset(time.Second) // from now on only what goes wrong is news
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.stopping:
			return nil
		case <-tick.C:
		}
	}
}

// welcome says what can be reached and how the mesh is stopped.
func (m *Mesh) welcome(s *Status) {
	var out bytes.Buffer // written at once: who waits for the first line finds all
	fmt.Fprintf(&out, "the mesh is up after %.1f s: %s, %s\n", time.Since(m.started).Seconds(), Count(s.Workloads, "workload"), Count(s.Services, "service"))
	for _, job := range s.FailedJobs {
		fmt.Fprintf(&out, "  %s failed: its backoffLimit is used up\n", job)
	}
	for _, line := range s.Published {
		fmt.Fprintf(&out, "  %s  %s\n", line.URL, line.Service)
	}
	fmt.Fprintf(&out, "  %s  Prometheus: targets, PromQL, /api/v1\n", s.Prometheus)
	typed := func(command string) string { return CommandLine(s.RunDir, command) }
	fmt.Fprintf(&out, "Ctrl-C or %s stops everything; try %s, %s, %s in another terminal\n",
		typed("down"), typed("ps"), typed("graph"), typed("logs -f"))
	_, _ = m.io.Progress.Write(out.Bytes()) // whoever read it may be gone: the mesh goes on
}

// Count is a number with its noun: 1 workload, 2 workloads.
func Count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}

// lastWords shortens what a program said to its last few lines.
func lastWords(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-wordsOfPod):], "\n"))
}
