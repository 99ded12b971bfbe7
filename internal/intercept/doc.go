// Package intercept builds the glass case: the Linux namespaces in which
// unmodified programs run so that all their traffic passes through a proxy.
//
// It hides namespaces, nftables, mounts, socket handover, DNS capture and the
// agent process. Callers see a [Case]: connections that the programs open come
// out of [Case.Outbound], [Case.Dial] reaches the programs' ports, and
// [Case.Start] runs programs.
//
// Three processes take part. P0 is the caller, in the namespaces of the host.
// P1 is the agent, the same executable started again as "agent": process 1 of
// new network, mount and process-id namespaces (and of a new user namespace when
// P0 is not root). P2 are the programs, children of P1. They share one Unix
// socket (see wire.go).
//
// Invariants:
//   - When P0 ends in whatever way, P1 gets SIGKILL from the kernel, and with
//     process 1 everything in the case ends: no process, namespace, mount or rule
//     is left. When P1 ends, P0 learns it at once.
//   - Nothing on the host is changed: all mounts are private to the case.
//   - Every socket of ours inside the case carries a firewall mark that takes it
//     out of interception; every other TCP connection that leaves the programs'
//     own addresses arrives at the Outbound listener.
//   - Programs never hold a descriptor or a capability of ours.
//
// [Start] starts one goroutine that is tied to P1's life; everything else is
// started and joined by [Case.Run], which must be running for the other methods
// to make progress. All methods of Case, Listener and Process may be called
// concurrently.
package intercept
