// Package faults kills the processes of a mesh at random moments and holds what
// follows against the promises: nothing is left behind, programs come back as
// their restart policy says, and the death of the control plane is noticed by no
// program. It has no code but its tests.
package faults
