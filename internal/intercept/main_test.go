package intercept_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// TestMain lets the test binary play all the roles of a case: the agent, the
// programs in it, and a P0 that is to be killed.
func TestMain(m *testing.M) {
	exit := os.Exit //nolint:forbidigo // this is the main function of all roles
	if intercept.IsAgent(os.Args) {
		exit(intercept.RunAgent(context.Background()))
	}
	if len(os.Args) > 2 && os.Args[1] == "role" {
		err := play(os.Args[2], os.Args[3:])
		if code, ok := errors.AsType[exitError](err); ok {
			exit(int(code))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			exit(1)
		}
		exit(0)
	}
	syscall.Umask(0o022) // other users run this, too
	goleak.VerifyTestMain(m)
}
