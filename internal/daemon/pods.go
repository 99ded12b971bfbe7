package daemon

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

func (m *Mesh) pods() []Pod {
	proxies := map[string]ads.ProxyStatus{}
	for _, p := range m.xds.Status() {
		if key, err := mesh.ParseNodeID(p.Node); err == nil {
			proxies[key] = p
		}
	}
	out := []Pod{}
	for _, p := range m.local.Pods() {
		proxy, connected := proxies[p.Workload.Key()]
		out = append(out, podOf(&p, proxyStateOf(&proxy, connected)))
	}
	return out
}

// podsWithPIDs adds the processes of each pod, for which all of the machine's
// have to be looked at.
func (m *Mesh) podsWithPIDs() []Pod {
	pods := m.pods()
	usage, err := m.local.Usage()
	if err != nil {
		m.io.Log.Warn("processes of pods are not known", "error", err)
	}
	for i := range pods {
		pods[i].PIDs = []int{}
		for _, u := range usage {
			if u.Namespace == pods[i].Namespace && u.Pod == pods[i].Name && u.Container != pod.ProxyContainer {
				pods[i].PIDs = append(pods[i].PIDs, u.PIDs...)
			}
		}
	}
	return pods
}

// Named reports whether a target of the command line names the pod, or what it
// belongs to (local.Matches).
func (p *Pod) Named(target string) bool {
	return local.Matches(target, &mesh.Workload{Namespace: p.Namespace, Name: p.Name, Owner: p.Owner})
}

func podOf(p *local.PodStatus, proxy ProxyState) Pod {
	w := &p.Workload
	out := Pod{
		Namespace: w.Namespace, Name: w.Name, Owner: w.Owner, Kind: w.OwnerKind, App: w.App(), Version: w.Version(),
		IP: w.IP.String(), Ports: []uint16{}, Phase: string(p.Status.Phase), Status: statusWord(p),
		Reason: p.Status.Reason, Message: p.Status.Message, Ready: w.Ready,
		Restarts: p.Restarts, Started: p.Created, ProxyPID: p.ProxyPID, Proxy: proxy,
		Containers: []Container{},
	}
	if out.Phase == "" {
		out.Phase = string(pod.Pending)
	}
	if p.Stopping {
		out.Reason = pod.ReasonTerminating
	}
	for _, port := range w.Ports {
		out.Ports = append(out.Ports, port.Port)
	}
	for _, c := range p.Status.Containers {
		row := Container{
			Name: c.Name, State: string(c.State), Ready: c.Ready, Reason: c.Reason, Message: c.Message,
			PID: c.PID, Restarts: c.Restarts, Started: c.Since,
		}
		if c.LastExit != nil {
			row.ExitCode, row.LastError = &c.LastExit.Code, c.LastExit.Message
		}
		if c.Init {
			out.InitContainers = append(out.InitContainers, row)
		} else {
			out.Containers = append(out.Containers, row)
		}
	}
	if len(p.Status.Containers) == 0 { // no process of the pod has told of them yet, or since the last one died
		for _, name := range p.Programs {
			out.Containers = append(out.Containers, Container{Name: name, State: string(pod.Waiting)})
		}
	}
	return out
}

// statusWord is what kubectl's STATUS column would say of a pod
// (kubernetes/pkg/printers/internalversion, printPod).
func statusWord(p *local.PodStatus) string {
	st := &p.Status
	if p.Stopping {
		return pod.ReasonTerminating
	}
	word := cmp.Or(st.Reason, string(st.Phase), string(pod.Pending))
	inits, done := 0, 0
	for _, c := range st.Containers {
		if c.Init {
			inits++
		}
	}
	running := false
	for _, c := range slices.Backward(st.Containers) {
		switch {
		case c.Init:
		case c.State != pod.Live && c.Reason != "":
			word = c.Reason
		case c.State == pod.Live:
			running = true
		}
	}
	if running && (word == pod.ReasonCompleted || st.Phase == pod.Running && word == st.Reason) {
		word = string(pod.Running)
	}
	for _, c := range st.Containers {
		if !c.Init || st.Phase != pod.Pending && st.Phase != pod.Failed {
			break
		}
		switch {
		case c.State == pod.Terminated && c.LastExit != nil && c.LastExit.Code == 0:
			done++
			continue
		case st.Phase == pod.Failed && (c.State != pod.Terminated || c.LastExit == nil):
			return word // it is not what the pod failed of
		case c.State == pod.Live || c.Reason == "" || c.Reason == pod.ReasonCreating || c.Reason == pod.ReasonInit:
			return fmt.Sprintf("Init:%d/%d", done, inits)
		}
		return "Init:" + c.Reason
	}
	return word
}

func proxyStateOf(p *ads.ProxyStatus, connected bool) ProxyState {
	s := ProxyState{Connected: connected, Synced: connected && p.Fault == ""}
	if p.Fault != "" {
		s.Rejected = "not told: " + p.Fault
	}
	for i := range p.Types {
		t := &p.Types[i]
		s.Synced = s.Synced && t.InSync()
		if t.LastError != "" && s.Rejected == "" {
			s.Rejected = fmt.Sprint(t.Kind) + ": " + t.LastError
		}
	}
	return s
}
