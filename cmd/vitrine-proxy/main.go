// Command vitrine-proxy is the data plane of one workload; see
// docs/ARCHITECTURE.md for its two processes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
	"github.com/vitrine-mesh/vitrine/internal/sidecar"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

const usage = `usage:
  vitrine-proxy sidecar --bootstrap FILE   serve one workload (started by vitrine)
  vitrine-proxy agent                      process 1 of a case (started by sidecar)
  vitrine-proxy version
`

func run(args []string, stdout, stderr io.Writer) int {
	switch {
	case intercept.IsAgent(args):
		return intercept.RunAgent(context.Background())
	case len(args) == 4 && args[1] == "sidecar" && args[2] == "--bootstrap":
		return sidecar.Main(args[3], version, stderr)
	case len(args) == 2 && (args[1] == "version" || args[1] == "--version"):
		fmt.Fprintf(stdout, "vitrine-proxy %s%s\n", version, revision())
		return 0
	case len(args) == 2 && (args[1] == "help" || args[1] == "--help" || args[1] == "-h"):
		fmt.Fprint(stdout, usage)
		return 0
	}
	fmt.Fprint(stderr, usage)
	return 2
}

// revision is the commit that the program was built from, if it is known.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return " (" + s.Value + ", " + info.GoVersion + ")"
		}
	}
	return " (" + info.GoVersion + ")"
}
