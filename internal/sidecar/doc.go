// Package sidecar is the composition root of vitrine-proxy: it knows which
// parts a pod's process has, in which order they start and end, and how they
// are connected. Everything else is in the parts.
//
// Order of start: lock, status socket, telemetry, case, proxy, configuration,
// outbound connections and DNS, admin; then, once the first configuration is in
// force, the programs. The end is the same list backwards, with the last metrics
// handed over in between. The list is in sidecar.serve.
//
// Main is called once, on the main goroutine. Nothing here is for concurrent
// use.
package sidecar
