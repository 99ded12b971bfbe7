// Package envoy holds the part of Envoy's and Istio's protobuf messages that
// Vitrine speaks, as plain Go structs, with the binary and the JSON form of
// protobuf.
//
// It hides protobuf. Each message says its fields once, in its visit method;
// writing, reading and JSON follow from that. Compared with generated code this
// is a hundredth of the size and needs no start-up work, which is what a proxy
// that starts beside every program needs. Tests compare every field with the
// descriptors of go-control-plane, and every byte with its decoder.
//
// A nil pointer is a field that is not set. Messages are values without state;
// they may be read concurrently. Output is deterministic: equal messages give
// equal bytes.
package envoy
