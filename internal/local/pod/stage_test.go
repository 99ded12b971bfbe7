package pod

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// script is what one start of a program does: run for a time and exit with a
// code. With forever it runs until it is told to end.
type script struct {
	run      time.Duration
	code     int
	forever  bool
	ignores  bool          // SIGTERM
	onTerm   time.Duration // time from SIGTERM to the end
	startErr error
	slow     time.Duration // until Start returns, while the program already runs
}

// stage is a Case whose programs follow scripts, in time that a test controls.
type stage struct {
	start time.Time

	mu     sync.Mutex
	queue  map[string][]script // by Args[0]; the last one repeats
	events []string
	serve  func(port uint16) error // nil refuses
	exec   func(args []string) error
}

func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("%s ", time.Since(s.start))+fmt.Sprintf(format, args...))
}

func (s *stage) Start(p Program) (Process, error) {
	s.mu.Lock()
	q := s.queue[p.Args[0]]
	sc := q[0]
	if len(q) > 1 {
		s.queue[p.Args[0]] = q[1:]
	}
	s.mu.Unlock()
	if sc.startErr != nil {
		return nil, sc.startErr
	}
	s.note("start %s", strings.Join(p.Args, " "))
	a := &actor{s: s, name: p.Args[0], sc: sc, done: make(chan struct{})}
	if !sc.forever {
		a.end(sc.run, Exit{Code: sc.code})
	}
	if sc.slow > 0 {
		<-time.NewTimer(sc.slow).C
	}
	return a, nil
}

func (s *stage) Exec(_ context.Context, p Program) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exec(p.Args)
}

func (s *stage) Dial(_ context.Context, port uint16) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serve == nil {
		return nil, syscall.ECONNREFUSED
	}
	if err := s.serve(port); err != nil {
		return nil, err
	}
	a, b := net.Pipe()
	b.Close()
	return a, nil
}

type actor struct {
	s    *stage
	name string
	sc   script
	done chan struct{}
	once sync.Once
	exit Exit
}

func (a *actor) end(after time.Duration, e Exit) {
	time.AfterFunc(after, func() {
		a.once.Do(func() {
			a.exit = e
			a.s.note("end %s", a.name)
			close(a.done)
		})
	})
}

func (a *actor) Signal(sig syscall.Signal) error {
	a.s.note("%s %s", sig, a.name)
	switch {
	case sig == syscall.SIGKILL:
		a.end(0, Exit{Signal: sig})
	case sig == syscall.SIGTERM && !a.sc.ignores:
		a.end(a.sc.onTerm, Exit{Code: a.sc.code})
	}
	return nil
}
func (a *actor) Done() <-chan struct{} { return a.done }
func (a *actor) Wait() Exit            { <-a.done; return a.exit }
func (a *actor) PID() int              { return 42 }

// bootstrap is a valid one for containers.
func bootstrap(restart mesh.RestartPolicy, containers ...mesh.Container) *Bootstrap {
	return &Bootstrap{
		Workload: mesh.Workload{
			Name: "web-app-6f9c7d5b8-x2k4q", Namespace: "default", Owner: "web-app", ServiceAccount: "web",
			Labels: map[string]string{"app": "web-app", "version": "v1"},
			IP:     mesh.IP(77, 5), CaseIP: mesh.CaseIP4(5), CaseIP6: mesh.CaseIP6(5),
		},
		Set:       mesh.WorkloadSet{Kind: mesh.KindDeployment, Restart: restart, GracePeriod: 30 * time.Second, Containers: containers},
		Net:       77,
		XDSSocket: "/run/x/xds.sock", ControlSocket: "/run/x/control.sock", RunDir: "/run/x/pods/default/p", StateDir: "/var/x",
	}
}

func program(name string) mesh.Container { return mesh.Container{Name: name, Args: []string{name}} }

// play runs a pod in a bubble: scene acts while it runs, and the events of the
// stage are returned when it has ended.
func play(t *testing.T, b *Bootstrap, s *stage, h Hooks, scene func(r *Runtime)) (Status, []string) {
	t.Helper()
	s.start = time.Now()
	r := New(Options{Bootstrap: b, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx, s, h) }()
	scene(r)
	cancel()
	<-ended
	st, _ := r.Status()
	return st, s.events
}

func wantEvents(t *testing.T, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// after lets the given time pass.
func after(d time.Duration) {
	tm := time.NewTimer(d)
	<-tm.C
	synctest.Wait()
}
