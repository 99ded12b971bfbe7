// Package ads is the ADS server of the control plane: it tells each proxy, over
// gRPC, its NodeConfig as Envoy resources (package xds), incrementally or as
// state of the world, and knows what each proxy accepted.
//
// It hides versions, nonces, subscriptions and the order of responses (clusters
// before endpoints before listeners before routes, removals last; by state of the
// world these wait until the rest was acknowledged). Each stream
// has its own goroutines and at most one burst of responses under way, so a
// proxy that is slow or stuck costs bounded memory and delays nobody; it is cut
// off after ServerOptions.StuckAfter. Methods of Server may be called
// concurrently; Serve may run on several listeners at once.
package ads
