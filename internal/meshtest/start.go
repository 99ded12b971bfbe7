package meshtest

import (
	"os"
	"os/signal"
	"syscall"
)

// ordinaryStart lets the programs that tests start be interrupted as from a
// terminal, and other users read what they make, whatever started the tests: nohup
// and a script's background job leave SIGHUP or SIGINT ignored, and who is started
// from there inherits that, as a strict umask. The tests of package local have the
// same: their program would link the embedded Prometheus with this package.
func ordinaryStart() {
	syscall.Umask(0o022)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig) // nobody listens: still ignored here
		}
	}
}
