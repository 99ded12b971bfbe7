// Package pod is the half of local mode that lives beside the programs: a
// kubelet for one pod. It starts the containers of one workload inside its
// case, restarts them with Kubernetes' back-off, probes them, reports their
// state on a Unix socket, and ends them gracefully.
//
// It hides how programs are kept running. It does not know how a case is made
// (Case is an interface that the caller fills) nor how traffic flows (Hooks).
// The package also holds what both halves of local mode share: the Bootstrap
// file, the Status messages, the lock that proves which process serves a pod,
// and the Client of the socket.
//
// Invariants: a container has at most one running program; a container that is
// waiting in back-off has none; Ready is true only while every container is
// ready and no stop was asked for. A Runtime may be used by any number of
// goroutines; Run is called once.
package pod
