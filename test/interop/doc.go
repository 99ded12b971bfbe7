// Package interop runs real programs of others against a running mesh: Envoy as
// a data plane that is configured by our control plane, and Prometheus as the
// receiver of our remote write and as the server that answers our queries, the
// code of Kiali and Grafana that reads from us (in the module clients).
// They are installed by `make interop`, which sets the build tag interop; the
// ordinary tests need none of them.
package interop
