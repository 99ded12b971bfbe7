package intercept_test

import "context"

func playSidecar(context.Context) error { return nil }
