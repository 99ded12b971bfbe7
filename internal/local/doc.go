// Package local is this machine as a source of workloads: it keeps the wanted
// number of replicas of each workload set running as local processes, one
// vitrine-proxy (which holds the case and the programs, see package pod) for
// each replica.
//
// It hides processes: how they are started, found again after the control plane
// was restarted, watched, replaced, ended and measured. Callers declare
// mesh.WorkloadSets and hear of mesh.Workloads.
//
// Invariants:
//   - No process is signalled unless it is proved to be a pod's: its pidfd was
//     opened and it held the pod's lock after that (pod.Lock).
//   - A pod's name, addresses and directories stay the same when its process
//     is started again.
//   - The pods outlive the Supervisor: the end of Run leaves them running, Stop
//     ends them.
//   - Hooks are called one at a time and in the order of the events.
//
// All methods of Supervisor may be called by any number of goroutines.
package local
