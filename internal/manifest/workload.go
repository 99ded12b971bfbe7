package manifest

import (
	"maps"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

const (
	defaultGraceSeconds   = 30
	defaultBackoffLimit   = 6
	defaultServiceAccount = "default"
	remedyWithout         = "remove the field, or expect the programs to run without it"
	// maxReplicas is what one local mesh has addresses for (mesh.Index).
	maxReplicas = 65531
)

// setObject is an object that owns replicas while it is converted.
type setObject struct {
	o        *object
	template *corev1.PodTemplateSpec
	path     string // of the template
	claims   []corev1.PersistentVolumeClaim
	set      mesh.WorkloadSet
	declared map[transportPort]*object // Service that said what a port speaks
	mounted  []mounted                 // by container, in the order of the file
}

// convertSet makes a WorkloadSet of o if it owns replicas.
func (l *loader) convertSet(o *object) {
	s := &setObject{o: o, path: "spec.template", declared: map[transportPort]*object{}}
	s.set = mesh.WorkloadSet{
		Kind: mesh.WorkloadKind(o.kind), Namespace: o.namespace, Name: o.name, Source: o.where(), Replicas: 1,
	}
	switch value := o.value.(type) {
	case *appsv1.Deployment:
		s.template = &value.Spec.Template
		s.replicas(value.Spec.Replicas, "spec.replicas")
		s.selector(value.Spec.Selector)
		s.restart(corev1.RestartPolicyAlways)
		s.deployment(&value.Spec)
	case *appsv1.StatefulSet:
		s.template, s.claims = &value.Spec.Template, value.Spec.VolumeClaimTemplates
		s.replicas(value.Spec.Replicas, "spec.replicas")
		s.selector(value.Spec.Selector)
		s.restart(corev1.RestartPolicyAlways)
		s.stateful(&value.Spec)
	case *batchv1.Job:
		s.template = &value.Spec.Template
		s.job(&value.Spec)
		s.restart(corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	default:
		return
	}
	s.pod()
	l.sets = append(l.sets, s)
}

func (s *setObject) replicas(n *int32, path string) {
	switch {
	case n == nil:
		return
	case *n < 0 || *n > maxReplicas:
		s.o.problem(path, "the number of replicas must be between 0 and 65531", "correct the number")
		return
	}
	s.set.Replicas = int(*n)
}

// selector holds a selector against the labels of the template, as the API
// server does.
func (s *setObject) selector(selector *metav1.LabelSelector) {
	if selector == nil || len(selector.MatchLabels) == 0 && len(selector.MatchExpressions) == 0 {
		s.o.problem("spec.selector", "spec.selector is missing", "write selector.matchLabels with labels of the template")
		return
	}
	match, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		s.o.problem("spec.selector", "the selector is wrong: "+err.Error(), "correct it")
		return
	}
	if !match.Matches(labels.Set(s.template.Labels)) {
		s.o.problem("spec.selector", "the selector does not match the labels of the template",
			"repeat its labels under spec.template.metadata.labels")
	}
}

func (s *setObject) restart(allowed ...corev1.RestartPolicy) {
	policy := s.template.Spec.RestartPolicy
	if policy == "" && s.set.Kind != mesh.KindJob {
		policy = corev1.RestartPolicyAlways
	}
	s.set.Restart = mesh.RestartPolicy(policy)
	if slices.Contains(allowed, policy) {
		return
	}
	remedy := "write OnFailure or Never"
	if s.set.Kind != mesh.KindJob {
		remedy = "write Always or remove the field; programs that end belong into a Job"
	}
	s.o.problem(s.path+".spec.restartPolicy", "restartPolicy of a "+s.o.kind+" cannot be "+quoted(string(policy)), remedy)
}

// deployment converts what a Deployment alone has.
func (s *setObject) deployment(spec *appsv1.DeploymentSpec) {
	switch spec.Strategy.Type {
	case "", appsv1.RollingUpdateDeploymentStrategyType:
	case appsv1.RecreateDeploymentStrategyType:
		s.set.Recreate = true
		if spec.Strategy.RollingUpdate != nil {
			s.o.problem("spec.strategy.rollingUpdate", "rollingUpdate cannot be given with type Recreate", "remove one of the two")
		}
	default:
		s.o.problem("spec.strategy.type", "the strategy "+quoted(string(spec.Strategy.Type))+" is not known", "write RollingUpdate or Recreate")
	}
	s.minReady(spec.MinReadySeconds)
	if spec.Paused {
		s.o.warn("spec.paused", "paused has no effect in this version: changes are rolled out at once", remedyWithout)
	}
}

// stateful names what a StatefulSet says in a cluster and not here.
func (s *setObject) stateful(spec *appsv1.StatefulSetSpec) {
	if spec.Ordinals != nil && spec.Ordinals.Start != 0 {
		s.o.warn("spec.ordinals", "ordinals have no effect: replicas are numbered from 0", "remove the field")
	}
	switch spec.PodManagementPolicy {
	case "", appsv1.OrderedReadyPodManagement:
	case appsv1.ParallelPodManagement:
		s.set.Parallel = true
	default:
		s.o.problem("spec.podManagementPolicy", "the policy "+quoted(string(spec.PodManagementPolicy))+" is not known",
			"write OrderedReady or Parallel")
	}
	switch spec.UpdateStrategy.Type {
	case "", appsv1.RollingUpdateStatefulSetStrategyType:
	case appsv1.OnDeleteStatefulSetStrategyType:
		s.o.warn("spec.updateStrategy.type", "OnDelete has no effect: replicas are replaced one by one when the template changes", remedyWithout)
	default:
		s.o.problem("spec.updateStrategy.type", "the strategy "+quoted(string(spec.UpdateStrategy.Type))+" is not known", "write RollingUpdate")
	}
	s.minReady(spec.MinReadySeconds)
	if r := spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil && *r.Partition > 0 {
		s.o.warn("spec.updateStrategy.rollingUpdate.partition", "partition has no effect: all replicas are replaced when the template changes", remedyWithout)
	}
}

func (s *setObject) job(spec *batchv1.JobSpec) {
	number := func(n *int32, def int, path string) int {
		if n == nil {
			return def
		}
		if *n < 0 || *n > maxReplicas {
			s.o.problem(path, path+" must be between 0 and "+strconv.Itoa(maxReplicas)+", is "+strconv.Itoa(int(*n)), "correct the number")
			return def
		}
		return int(*n)
	}
	s.set.Replicas = number(spec.Parallelism, 1, "spec.parallelism")
	// Without completions each of the parallel programs is to succeed once.
	s.set.Completions = number(spec.Completions, max(s.set.Replicas, 1), "spec.completions")
	s.set.Replicas = min(s.set.Replicas, s.set.Completions)
	s.set.BackoffLimit = number(spec.BackoffLimit, defaultBackoffLimit, "spec.backoffLimit")
	if spec.Suspend != nil && *spec.Suspend {
		s.set.Replicas = 0
	}
	const remedy = "remove the field, or expect the job to run without it"
	if spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion {
		s.o.warn("spec.completionMode", "completionMode Indexed has no effect: programs get no JOB_COMPLETION_INDEX", remedy)
	}
	for path, used := range map[string]bool{
		"spec.activeDeadlineSeconds":   spec.ActiveDeadlineSeconds != nil,
		"spec.ttlSecondsAfterFinished": spec.TTLSecondsAfterFinished != nil,
		"spec.podFailurePolicy":        spec.PodFailurePolicy != nil,
		"spec.successPolicy":           spec.SuccessPolicy != nil,
		"spec.backoffLimitPerIndex":    spec.BackoffLimitPerIndex != nil,
	} {
		if used {
			s.o.warn(path, path+" has no effect in this version", remedy)
		}
	}
}

// pod converts the pod template.
func (s *setObject) pod() {
	spec := &s.template.Spec
	s.o.checkLabels(s.path+".metadata.labels", s.template.Labels)
	s.set.Labels = maps.Clone(s.template.Labels)
	s.set.Annotations = maps.Clone(s.template.Annotations)
	s.set.GracePeriod = defaultGraceSeconds * time.Second
	if grace := spec.TerminationGracePeriodSeconds; grace != nil {
		if *grace < 0 || *grace > int64((1<<31)-1) {
			s.o.problem(s.path+".spec.terminationGracePeriodSeconds", "the grace period must not be negative or above 2147483647", "correct the number")
		}
		s.set.GracePeriod = time.Duration(min(max(*grace, 0), 1<<31-1)) * time.Second
	}
	s.checkAnnotations("metadata.annotations", s.o.metadata().Annotations)
	s.checkAnnotations(s.path+".metadata.annotations", s.template.Annotations)
	s.serviceAccount()
	s.podWarnings()
	volumes := s.volumes()
	names := map[string]bool{}
	for i := range spec.InitContainers {
		c, path := &spec.InitContainers[i], index(s.path+".spec.initContainers", i)
		sidecar := goesOn(c)
		out, ok := s.container(c, volumes, names, path, sidecar)
		switch {
		case !ok:
		case !sidecar:
			s.set.InitContainers = append(s.set.InitContainers, out)
		case s.set.Kind == mesh.KindJob:
			s.o.problem(path+".restartPolicy", "an init container that goes on running is not supported in a Job", "make it a Deployment of its own")
		default:
			out.Sidecar = &mesh.SidecarPlace{AfterInit: len(s.set.InitContainers)}
			s.set.Containers = append(s.set.Containers, out)
		}
	}
	if len(spec.Containers) == 0 {
		s.o.problem(s.path+".spec", "the pod template has no containers", "write at least one")
	}
	for i := range spec.Containers {
		if out, ok := s.container(&spec.Containers[i], volumes, names, index(s.path+".spec.containers", i), true); ok {
			s.set.Containers = append(s.set.Containers, out)
		}
	}
	s.checkPorts()
	s.checkMounts()
}

// minReady warns of a time that a cluster waits with each replica of a roll-out.
func (s *setObject) minReady(seconds int32) {
	if seconds > 0 {
		s.o.warn("spec.minReadySeconds", "minReadySeconds has no effect in this version: the next replica follows when one is ready", remedyWithout)
	}
}

func isSet(b *bool) bool { return b != nil && *b }

func (s *setObject) serviceAccount() {
	spec := &s.template.Spec
	path := s.path + ".spec.serviceAccountName"
	name := spec.ServiceAccountName
	if name == "" {
		name, path = spec.DeprecatedServiceAccount, s.path+".spec.serviceAccount"
	}
	if name == "" {
		name = defaultServiceAccount
	}
	s.set.ServiceAccount = name
	if validation.IsDNS1123Subdomain(name) != nil {
		s.o.problem(path, "the service account name "+quoted(name)+" is not allowed", remedySubdomain)
	} else if name != defaultServiceAccount && !s.o.loader.accounts[s.o.namespace+"/"+name] {
		s.o.warn(path, "ServiceAccount "+quoted(name)+" is in none of the files", "add it: a cluster starts nothing without it")
	}
}

// podWarnings names fields that change what a program does in a cluster and
// have no effect here.
func (s *setObject) podWarnings() {
	spec := &s.template.Spec
	for _, w := range []struct {
		field string
		used  bool
	}{
		{"hostNetwork", spec.HostNetwork},
		{"hostAliases", len(spec.HostAliases) > 0},
		{"dnsConfig", spec.DNSConfig != nil},
		{"activeDeadlineSeconds", spec.ActiveDeadlineSeconds != nil},
		{"readinessGates", len(spec.ReadinessGates) > 0},
		{"ephemeralContainers", len(spec.EphemeralContainers) > 0},
		{"hostname", spec.Hostname != "" || spec.HostnameOverride != nil},
		{"subdomain", spec.Subdomain != ""},
		{"setHostnameAsFQDN", isSet(spec.SetHostnameAsFQDN)},
		{"shareProcessNamespace", isSet(spec.ShareProcessNamespace)},
		{"hostPID", spec.HostPID},
		{"hostIPC", spec.HostIPC},
		{"hostUsers", isSet(spec.HostUsers)},
		{"dnsPolicy", spec.DNSPolicy != "" && spec.DNSPolicy != corev1.DNSClusterFirst && spec.DNSPolicy != corev1.DNSClusterFirstWithHostNet},
		{"runtimeClassName", spec.RuntimeClassName != nil},
	} {
		if w.used {
			s.o.warn(s.path+".spec."+w.field, w.field+" has no effect in this version", remedyWithout)
		}
	}
}
