package daemon

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		os.Exit(hold(dir)) //nolint:forbidigo // this is main, of the other role
	}
	goleak.VerifyTestMain(m)
}
