// Package xds translates between mesh.NodeConfig and plain Envoy resources and
// receives configuration over ADS. Its subpackage ads is the server.
//
// It hides how a NodeConfig looks on the wire: which Envoy messages and fields
// stand for it, how versions and nonces work, and how a connection to the
// control plane is kept. The client reads back what Encode was given, for every
// valid NodeConfig. A resource with a field or a type of message that Encode never
// writes is refused. Of the fields that it does write, those that say the same in
// every resource (the configuration sources, the matches and inspectors of
// listeners, the load balancing of clusters) are not looked at again: the client
// is made for a control plane that encodes with this package.
//
// The package runs in every proxy and must stay small: linking go-control-plane
// and grpc-go costs 16 MB of resident memory before the first line runs, linking
// this package 3 MB. So the messages are those of the subpackage envoy, and the
// client speaks gRPC itself over HTTP/2. The tests hold both against
// go-control-plane and grpc-go.
//
// Functions are safe for concurrent use; Client.Run may run once.
package xds
