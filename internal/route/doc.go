// Package route finds the route of a request.
//
// It hides how host names and paths are matched. Compile turns route
// configurations into a Table once per configuration push; everything in a Table
// is immutable and may be used by any number of goroutines. Matching and picking
// allocate nothing, which a test asserts.
package route
