package intercept_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// TestMain lets the test binary play all the roles of a case: the agent, the
// programs in it, and a P0 that is to be killed.
func TestMain(m *testing.M) {
	if intercept.IsAgent(os.Args) {
		os.Exit(intercept.RunAgent(context.Background()))
	}
	if len(os.Args) > 2 && os.Args[1] == "role" {
		if err := play(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
