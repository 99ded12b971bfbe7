package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// noArgs is for commands that stand alone.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is too much: %s takes only flags", args[0], cmd.CommandPath())
	}
	return nil
}

// wantArgs is for commands that need from least to most arguments, any number if
// most is 0. what says which, in an error.
func wantArgs(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("give %s", what)
		case most > 0 && len(args) > most:
			return fmt.Errorf("give %s, and not %q too", what, args[most])
		}
		return nil
	}
}
