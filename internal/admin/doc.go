// Package admin serves the administration interface of one proxy: the paths and
// answers of Envoy's admin on port 15000, and the small health and metrics
// servers that Istio's agent has on 15020, 15021 and 15090, so that curl habits,
// istioctl and dashboards work unchanged.
//
// It hides Envoy's text and JSON shapes. What it shows comes through the small
// interfaces declared here; it changes nothing but the log level, and asks for a
// shutdown. Requests are refused unless they name this machine as host and do
// not come from a foreign web page, since an ordinary browser can reach the port.
//
// All handlers may be used by any number of goroutines.
package admin
