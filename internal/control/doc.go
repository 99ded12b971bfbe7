// Package control is the control plane: it merges what several sources know of
// services and workloads, gives out addresses, waits until changes calm down,
// and publishes immutable Snapshots of the whole mesh. View computes from a
// Snapshot what one proxy needs.
//
// It hides where virtual IPs and workload numbers come from and how they stay
// the same over restarts, when a change becomes visible, and how listeners,
// routes and clusters follow from services.
//
// Invariants: a published Snapshot never changes; versions only grow; no two
// hosts of a Snapshot share a virtual IP; an address that was given out is on
// disk before the Snapshot that shows it is published (unless the disk refuses,
// which is logged and counted). View is a pure function of its arguments and
// does not depend on the order in which objects arrived.
//
// All methods of Plane may be called concurrently.
package control
