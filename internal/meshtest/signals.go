package meshtest

import (
	"os"
	"os/signal"
	"syscall"
)

// ordinarySignals lets the programs that tests start be interrupted as from a
// terminal, whatever started the tests: nohup and a script's background job leave
// SIGHUP or SIGINT ignored, and who is started from there inherits that.
func ordinarySignals() {
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig) // nobody listens: still ignored here
		}
	}
}
