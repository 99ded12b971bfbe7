package envoy

// Workload is a workload as Istio's workload discovery describes it
// (istio pkg/workloadapi/workload.proto).
type Workload struct {
	Name              string
	Namespace         string
	Addresses         [][]byte // 4 or 16 bytes each
	ServiceAccount    string   // "" is default
	CanonicalName     string
	CanonicalRevision string
	WorkloadType      WorkloadType
	WorkloadName      string
	Status            WorkloadStatus
	ClusterID         string
	UID               string
	Extensions        []*Extension
}

// WorkloadType is the kind of a workload's owner.
type WorkloadType int32

// Workload types.
const (
	TypeDeployment WorkloadType = 0
	TypePod        WorkloadType = 2
	TypeJob        WorkloadType = 3
)

// WorkloadStatus says whether a workload takes traffic.
type WorkloadStatus int32

// Workload states.
const (
	Healthy   WorkloadStatus = 0
	Unhealthy WorkloadStatus = 1
)

// FullName implements Message.
func (*Workload) FullName() string { return "istio.workload.Workload" }

func (w *Workload) visit(v *visitor) {
	v.str(1, "name", &w.Name)
	v.str(2, "namespace", &w.Namespace)
	v.byteSlices(3, "addresses", &w.Addresses)
	v.str(7, "service_account", &w.ServiceAccount)
	v.str(10, "canonical_name", &w.CanonicalName)
	v.str(11, "canonical_revision", &w.CanonicalRevision)
	enum(v, 12, "workload_type", &w.WorkloadType, "DEPLOYMENT", "CRONJOB", "POD", "JOB")
	v.str(13, "workload_name", &w.WorkloadName)
	enum(v, 17, "status", &w.Status, "HEALTHY", "UNHEALTHY")
	v.str(18, "cluster_id", &w.ClusterID)
	v.str(20, "uid", &w.UID)
	messages(v, 26, "extensions", &w.Extensions)
}

// Extension is additional information about a workload.
type Extension struct {
	Name   string
	Config Message
}

// FullName implements Message.
func (*Extension) FullName() string { return "istio.workload.Extension" }

func (e *Extension) visit(v *visitor) {
	v.str(1, "name", &e.Name)
	anyOf(v, 2, "config", &e.Config)
}

// VitrineWorkload is our extension of Workload: what Istio's message does not
// hold.
//
//	message Workload {
//	  bytes mesh_ip = 1;
//	  bytes case_ip = 2;
//	  bytes case_ip6 = 3;
//	  string owner_kind = 4;
//	  map<string, string> labels = 5;
//	  repeated WorkloadPort ports = 6;
//	}
type VitrineWorkload struct {
	MeshIP    []byte
	CaseIP    []byte
	CaseIP6   []byte
	OwnerKind string
	Labels    map[string]string
	Ports     []*VitrinePort
}

// FullName implements Message.
func (*VitrineWorkload) FullName() string { return "vitrine.v1.Workload" }

func (w *VitrineWorkload) visit(v *visitor) {
	v.raw(1, "mesh_ip", &w.MeshIP)
	v.raw(2, "case_ip", &w.CaseIP)
	v.raw(3, "case_ip6", &w.CaseIP6)
	v.str(4, "owner_kind", &w.OwnerKind)
	stringMap(v, 5, "labels", &w.Labels)
	messages(v, 6, "ports", &w.Ports)
}

// VitrinePort is one port of a workload.
//
//	message WorkloadPort {
//	  string name = 1;
//	  uint32 port = 2;
//	  string protocol = 3;
//	  uint32 wire_port = 4;
//	}
type VitrinePort struct {
	Name     string
	Port     uint32
	Protocol string
	WirePort uint32
}

// FullName implements Message.
func (*VitrinePort) FullName() string { return "vitrine.v1.WorkloadPort" }

func (p *VitrinePort) visit(v *visitor) {
	v.str(1, "name", &p.Name)
	v.uint32(2, "port", &p.Port)
	v.str(3, "protocol", &p.Protocol)
	v.uint32(4, "wire_port", &p.WirePort)
}

// NameTable is what a workload's DNS answers (istio pkg/dns/proto/nds.proto).
// State of the world fills Table, incremental resources fill NameInfo.
type NameTable struct {
	Table    map[string]*NameInfo
	NameInfo *NameInfo
}

// FullName implements Message.
func (*NameTable) FullName() string { return "istio.networking.nds.v1.NameTable" }

func (t *NameTable) visit(v *visitor) {
	messageMap(v, 1, "table", &t.Table)
	message(v, 2, "name_info", &t.NameInfo)
}

// NameInfo is the answer for one name.
type NameInfo struct {
	IPs       []string
	Registry  string
	ShortName string
	Namespace string
	SRV       []*VitrineSRV // ours, in a number far from Istio's
}

// FullName implements Message.
func (*NameInfo) FullName() string { return "istio.networking.nds.v1.NameTable.NameInfo" }

func (i *NameInfo) visit(v *visitor) {
	v.strs(1, "ips", &i.IPs)
	v.str(2, "registry", &i.Registry)
	v.str(3, "shortname", &i.ShortName)
	v.str(4, "namespace", &i.Namespace)
	messages(v, 1001, "vitrine_srv", &i.SRV)
}

// VitrineSRV is one service record below a service's name.
//
//	message SRV {
//	  string service = 1;
//	  string target = 2;
//	  uint32 port = 3;
//	}
type VitrineSRV struct {
	Service string
	Target  string
	Port    uint32
}

// FullName implements Message.
func (*VitrineSRV) FullName() string { return "vitrine.v1.SRV" }

func (r *VitrineSRV) visit(v *visitor) {
	v.str(1, "service", &r.Service)
	v.str(2, "target", &r.Target)
	v.uint32(3, "port", &r.Port)
}
