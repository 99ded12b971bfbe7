// Package scripts tells what users of the command line live through, as stories
// that the real programs are held to (testdata/*.txtar, rogpeppe/go-internal's
// testscript). It has no code but its tests; hello is the program of the stories.
package scripts
