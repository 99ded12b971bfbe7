// Package meshtest runs a whole mesh for a test: the real binaries as separate
// processes, with directories and ports of their own, started from ordinary
// YAML and ended by signal, or killed. It hides how they are built, found, waited
// for and cleaned up after, and it fails a test that leaves a process, namespace,
// mount or socket behind.
//
// Tests only. A Binaries is made once per test process and may be used by any
// number of tests; a Mesh belongs to one test, its queries may be called by any
// number of goroutines.
package meshtest
