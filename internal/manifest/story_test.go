package manifest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestStories replays the transcripts of testdata/stories. Commands:
//
//	file NAME                     writes the input to NAME
//	link NAME to=LINK             makes a symbolic link
//	load [PATH…] [namespace=NS] [check] [stdin]
//	                              loads the paths, or the input as app.yaml,
//	                              and prints diagnostics, then the objects
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		t.Helper()
		abs, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := filepath.EvalSymlinks(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Chdir(dir)
		datadriven.RunTest(t, abs, func(t *testing.T, d *datadriven.TestData) string {
			t.Helper()
			switch d.Cmd {
			case "file":
				writeFile(t, d.CmdArgs[0].Key, d.Input)
				return ""
			case "link":
				if err := os.Symlink(d.CmdArgs[0].Key, d.CmdArgs[1].Vals[0]); err != nil {
					t.Fatal(err)
				}
				return ""
			case "load":
				return strings.ReplaceAll(load(t, d), dir, "$DIR")
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	var paths []string
	var opts Options
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "namespace":
			opts.Namespace = arg.Vals[0]
		case "check":
			opts.CheckPrograms = true
		case "stdin":
			opts.Stdin = strings.NewReader(d.Input)
			paths = append(paths, "-")
		default:
			paths = append(paths, arg.Key)
		}
	}
	if len(paths) == 0 && d.Input != "" {
		writeFile(t, "app.yaml", d.Input)
		paths = []string{"app.yaml"}
	}
	objects, diags := Load(paths, opts)
	var b strings.Builder
	for _, diag := range diags {
		fmt.Fprintln(&b, diag)
	}
	dump(&b, objects)
	if files, dirs := Find(paths); objects != nil && len(files) > 0 {
		fmt.Fprintf(&b, "files %s dirs %s\n", strings.Join(files, " "), strings.Join(dirs, " "))
	}
	return b.String()
}

// dump writes objects so that a reader sees everything that was set.
func dump(b *strings.Builder, o *Objects) {
	if o == nil {
		fmt.Fprintln(b, "nothing is loaded")
		return
	}
	for i := range o.Sets {
		dumpSet(b, &o.Sets[i])
	}
	for i := range o.Services {
		dumpService(b, &o.Services[i])
	}
}

func dumpSet(b *strings.Builder, s *mesh.WorkloadSet) {
	fmt.Fprintf(b, "%s %s/%s (%s): replicas %d, restart %s, grace %v, account %s", s.Kind, s.Namespace, s.Name, s.Source,
		s.Replicas, s.Restart, s.GracePeriod, s.ServiceAccount)
	if s.Kind == mesh.KindJob {
		fmt.Fprintf(b, ", completions %d, backoff limit %d", s.Completions, s.BackoffLimit)
	}
	if s.Recreate {
		fmt.Fprint(b, ", recreate")
	}
	if s.Parallel {
		fmt.Fprint(b, ", parallel")
	}
	fmt.Fprintf(b, "\n  labels %s\n", words(s.Labels))
	if len(s.Annotations) > 0 {
		fmt.Fprintf(b, "  annotations %s\n", words(s.Annotations))
	}
	for i := range s.InitContainers {
		dumpContainer(b, "init", &s.InitContainers[i])
	}
	for i := range s.Containers {
		role := "container"
		if side := s.Containers[i].Sidecar; side != nil {
			role = fmt.Sprintf("sidecar after %d init", side.AfterInit)
		}
		dumpContainer(b, role, &s.Containers[i])
	}
}

func dumpContainer(b *strings.Builder, role string, c *mesh.Container) {
	fmt.Fprintf(b, "  %s %s: %q in %s\n", role, c.Name, c.Args, c.Dir)
	for _, v := range c.Env {
		if v.FieldPath != "" {
			fmt.Fprintf(b, "    env %s <- %s\n", v.Name, v.FieldPath)
			continue
		}
		fmt.Fprintf(b, "    env %s=%q\n", v.Name, v.Value)
	}
	for _, p := range c.Ports {
		fmt.Fprintf(b, "    port %d %s %s\n", p.Port, p.Protocol, p.Name)
	}
	for _, f := range c.Files {
		fmt.Fprintf(b, "    file %s %04o %q%s", f.Path, f.Mode, f.Data, f.FieldPath)
		if f.Mount != "" {
			fmt.Fprintf(b, " in %s", f.Mount)
		}
		b.WriteByte('\n')
	}
	for _, d := range c.Dirs {
		fmt.Fprintf(b, "    dir %s of %s\n", d.Path, d.Volume)
	}
	dumpProbe(b, "liveness", c.Liveness)
	dumpProbe(b, "readiness", c.Readiness)
	dumpProbe(b, "startup", c.Startup)
}

func dumpProbe(b *strings.Builder, role string, p *mesh.Probe) {
	if p == nil {
		return
	}
	fmt.Fprintf(b, "    %s delay %v period %v timeout %v success %d failure %d:", role, p.InitialDelay, p.Period, p.Timeout,
		p.SuccessThreshold, p.FailureThreshold)
	if p.HTTP != nil {
		fmt.Fprintf(b, " http %+v", *p.HTTP)
	}
	if p.TCP != nil {
		fmt.Fprintf(b, " tcp %+v", *p.TCP)
	}
	if p.GRPC != nil {
		fmt.Fprintf(b, " grpc %+v", *p.GRPC)
	}
	if p.Exec != nil {
		fmt.Fprintf(b, " exec %q", p.Exec)
	}
	fmt.Fprintln(b)
}

func dumpService(b *strings.Builder, s *mesh.Service) {
	fmt.Fprintf(b, "Service %s: %s/%s, selector %s", s.Host, s.Namespace, s.Name, words(s.Selector))
	if s.Headless {
		fmt.Fprint(b, ", headless")
	}
	if s.PublishNotReady {
		fmt.Fprint(b, ", ready or not")
	}
	fmt.Fprintln(b)
	for _, p := range s.Ports {
		fmt.Fprintf(b, "  port %d %s %s -> %d%s", p.Port, p.Protocol, p.Name, p.TargetPort, p.TargetName)
		for _, a := range p.Publish {
			fmt.Fprintf(b, " at %s", a)
		}
		fmt.Fprintln(b)
	}
}

func words(m map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s=%s", k, m[k]))
	}
	return strings.Join(list, " ")
}
