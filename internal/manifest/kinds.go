package manifest

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// Kinds that are applied.
const (
	kindNamespace      = "Namespace"
	kindDeployment     = "Deployment"
	kindStatefulSet    = "StatefulSet"
	kindJob            = "Job"
	kindService        = "Service"
	kindConfigMap      = "ConfigMap"
	kindSecret         = "Secret"
	kindServiceAccount = "ServiceAccount"
)

// homeOf is the API version in which an applied kind is understood.
func homeOf(kind string) (apiVersion string, empty any) {
	switch kind {
	case kindNamespace:
		return "v1", &corev1.Namespace{}
	case kindDeployment:
		return "apps/v1", &appsv1.Deployment{}
	case kindStatefulSet:
		return "apps/v1", &appsv1.StatefulSet{}
	case kindJob:
		return "batch/v1", &batchv1.Job{}
	case kindService:
		return "v1", &corev1.Service{}
	case kindConfigMap:
		return "v1", &corev1.ConfigMap{}
	case kindSecret:
		return "v1", &corev1.Secret{}
	case kindServiceAccount:
		return "v1", &corev1.ServiceAccount{}
	}
	return "", nil
}

func appliedKinds() []string {
	return []string{
		kindNamespace, kindDeployment, kindStatefulSet, kindJob,
		kindService, kindConfigMap, kindSecret, kindServiceAccount,
	}
}

// withoutEffect lists, by API group, the kinds that are known and left out.
// nil stands for every kind of the group.
func withoutEffect(group string) (kinds []string, known bool) {
	switch group {
	case "":
		return []string{
			"Pod", "ReplicationController", "PersistentVolume", "PersistentVolumeClaim", "Endpoints", "Event",
			"LimitRange", "ResourceQuota", "Node", "PodTemplate",
		}, true
	case "apps":
		return []string{"DaemonSet", "ReplicaSet", "ControllerRevision"}, true
	case "batch":
		return []string{"CronJob"}, true
	case "autoscaling":
		return []string{"HorizontalPodAutoscaler"}, true
	case "autoscaling.k8s.io":
		return []string{"VerticalPodAutoscaler"}, true
	case "policy":
		return []string{"PodDisruptionBudget", "PodSecurityPolicy"}, true
	case "networking.k8s.io":
		return []string{"Ingress", "IngressClass", "NetworkPolicy"}, true
	case "rbac.authorization.k8s.io":
		return []string{"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}, true
	case "networking.istio.io":
		return []string{
			"VirtualService", "DestinationRule", "ServiceEntry", "Gateway", "Sidecar",
			"WorkloadEntry", "WorkloadGroup", "EnvoyFilter", "ProxyConfig",
		}, true
	case "security.istio.io":
		return []string{"PeerAuthentication", "AuthorizationPolicy", "RequestAuthentication"}, true
	case "telemetry.istio.io":
		return []string{"Telemetry"}, true
	case "extensions.istio.io":
		return []string{"WasmPlugin"}, true
	case "config.istio.io", // metric, prometheus, handler, rule and one kind per adapter
		"gateway.networking.k8s.io", "monitoring.coreos.com", "admissionregistration.k8s.io",
		"apiextensions.k8s.io", "apiregistration.k8s.io", "certificates.k8s.io", "coordination.k8s.io",
		"discovery.k8s.io", "events.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "node.k8s.io",
		"cert-manager.io", "kustomize.config.k8s.io", "install.istio.io", "autoscaling.keda.sh":
		return nil, true
	}
	return nil, false
}

// knownWithoutEffect warns about an object that this version leaves out.
func (l *loader) knownWithoutEffect(o *object) bool {
	kinds, known := withoutEffect(o.group())
	if !known || kinds != nil && !slices.Contains(kinds, o.kind) {
		return false
	}
	remedy := "nothing to do, unless you rely on it"
	switch o.kind {
	case "Pod", "ReplicaSet", "ReplicationController", "DaemonSet":
		remedy = "its programs are not started: write a Deployment"
	case "CronJob":
		remedy = "its programs are not started: write a Job"
	}
	o.warn("kind", "known, has no effect in this version", remedy)
	return true
}

// supported makes the empty value of an object that is applied, and reports
// every other kind.
func (l *loader) supported(o *object) bool {
	home, value := homeOf(o.kind)
	if home == o.apiVersion {
		o.value = value
		return true
	}
	candidates := map[string]bool{}
	for _, kind := range appliedKinds() {
		candidates[kind] = true
	}
	kinds, known := withoutEffect(o.group())
	for _, kind := range kinds {
		candidates[kind] = true
	}
	near := nearest(o.kind, candidates)
	switch {
	case home != "":
		o.problem("apiVersion", o.kind+" is understood in apiVersion "+home+", not in "+o.apiVersion, "write apiVersion: "+home)
	case near != "":
		o.problem("kind", "unknown kind "+o.kind+" of "+o.apiVersion, "did you mean "+near+"?")
	case known || strings.HasSuffix(o.group(), ".k8s.io"):
		o.problem("kind", "unknown kind "+o.kind+" of "+o.apiVersion, "correct it or take the object out")
	default:
		o.problem("kind", "unknown kind "+o.kind+" of "+o.apiVersion, "take the object out: Vitrine knows no controller for it")
	}
	return false
}

// accept checks the metadata of a decoded object and keeps it.
func (l *loader) accept(o *object) {
	meta := o.metadata()
	o.name, o.namespace = meta.Name, meta.Namespace
	if o.kind == kindNamespace {
		o.namespace = ""
	} else if o.namespace == "" {
		o.namespace = l.opts.Namespace
	}
	o.checkMetadata(meta)
	l.found = append(l.found, o)
}
