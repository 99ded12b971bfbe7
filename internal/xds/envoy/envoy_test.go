package envoy

import (
	"bytes"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpinspectorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	proxyprotocolpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcppb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	upstreampb "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// twins pairs our messages with the generated ones.
func twins() map[Message]proto.Message {
	return map[Message]proto.Message{
		&Address{}: &corepb.Address{}, &SocketAddress{}: &corepb.SocketAddress{}, &Metadata{}: &corepb.Metadata{},
		&ConfigSource{}: &corepb.ConfigSource{}, &AggregatedConfigSource{}: &corepb.AggregatedConfigSource{}, &Node{}: &corepb.Node{},
		&Listener{}: &listenerpb.Listener{}, &FilterChain{}: &listenerpb.FilterChain{}, &FilterChainMatch{}: &listenerpb.FilterChainMatch{},
		&Filter{}: &listenerpb.Filter{}, &ListenerFilter{}: &listenerpb.ListenerFilter{},
		&ProxyProtocol{}: &proxyprotocolpb.ProxyProtocol{}, &TLSInspector{}: &tlsinspectorpb.TlsInspector{}, &HTTPInspector{}: &httpinspectorpb.HttpInspector{},
		&HTTPConnectionManager{}: &managerpb.HttpConnectionManager{}, &RDS{}: &managerpb.Rds{}, &HTTPFilter{}: &managerpb.HttpFilter{},
		&Router{}: &routerpb.Router{}, &TCPProxy{}: &tcppb.TcpProxy{},
		&RouteConfiguration{}: &routepb.RouteConfiguration{}, &VirtualHost{}: &routepb.VirtualHost{}, &Route{}: &routepb.Route{},
		&RouteMatch{}: &routepb.RouteMatch{}, &RouteAction{}: &routepb.RouteAction{}, &WeightedCluster{}: &routepb.WeightedCluster{},
		&ClusterWeight{}: &routepb.WeightedCluster_ClusterWeight{},
		&Cluster{}:       &clusterpb.Cluster{}, &EDSClusterConfig{}: &clusterpb.Cluster_EdsClusterConfig{},
		&HTTPProtocolOptions{}: &upstreampb.HttpProtocolOptions{}, &UseDownstreamHTTPConfig{}: &upstreampb.HttpProtocolOptions_UseDownstreamHttpConfig{},
		&HTTP1Options{}: &corepb.Http1ProtocolOptions{}, &HTTP2Options{}: &corepb.Http2ProtocolOptions{},
		&ClusterLoadAssignment{}: &endpointpb.ClusterLoadAssignment{}, &LocalityLbEndpoints{}: &endpointpb.LocalityLbEndpoints{},
		&LbEndpoint{}: &endpointpb.LbEndpoint{}, &Endpoint{}: &endpointpb.Endpoint{},
		&DiscoveryRequest{}: &discoverypb.DiscoveryRequest{}, &DiscoveryResponse{}: &discoverypb.DiscoveryResponse{},
		&DeltaDiscoveryRequest{}: &discoverypb.DeltaDiscoveryRequest{}, &DeltaDiscoveryResponse{}: &discoverypb.DeltaDiscoveryResponse{},
		&Resource{}: &discoverypb.Resource{}, &Status{}: &statuspb.Status{},
		&Duration{}: &durationpb.Duration{}, &BoolValue{}: &wrapperspb.BoolValue{}, &UInt32Value{}: &wrapperspb.UInt32Value{},
		&Struct{}: &structpb.Struct{}, &Value{}: &structpb.Value{}, &ListValue{}: &structpb.ListValue{},
	}
}

// TestFieldsMatchDescriptors compares number, name, type and cardinality of
// every field of every message with the descriptors that Envoy publishes.
func TestFieldsMatchDescriptors(t *testing.T) {
	for own, theirs := range twins() {
		d := theirs.ProtoReflect().Descriptor()
		if got, want := own.FullName(), string(d.FullName()); got != want {
			t.Errorf("%T is called %s, want %s", own, got, want)
		}
		v := visitor{mode: describing}
		own.visit(&v)
		for _, f := range v.described {
			fd := d.Fields().ByNumber(f.num)
			if fd == nil {
				t.Errorf("%s has no field %d (%s)", d.FullName(), f.num, f.name)
				continue
			}
			if string(fd.Name()) != f.name {
				t.Errorf("%s field %d is called %s, want %s", d.FullName(), f.num, f.name, fd.Name())
			}
			value := fd
			if fd.IsMap() {
				value = fd.MapValue()
			}
			kind := value.Kind().String()
			if value.Kind() == protoreflect.MessageKind {
				kind = string(value.Message().FullName())
			}
			if kind != f.kind || fd.IsMap() != f.isMap || (fd.Cardinality() == protoreflect.Repeated) != f.repeated {
				t.Errorf("%s.%s is %s (repeated %v, map %v), want %s (%v, %v)", d.FullName(), f.name,
					f.kind, f.repeated, f.isMap, kind, fd.Cardinality() == protoreflect.Repeated, fd.IsMap())
			}
		}
	}
}

// samples are messages with every kind of field set.
func samples() map[Message]proto.Message {
	long := string(bytes.Repeat([]byte("x"), 300))
	return map[Message]proto.Message{
		&Listener{
			Name: "0.0.0.0_80", Address: &Address{SocketAddress: &SocketAddress{Address: "0.0.0.0", PortValue: new(uint32(0))}},
			FilterChains: []*FilterChain{
				{
					Match: &FilterChainMatch{TransportProtocol: RawBuffer, ApplicationProtocols: []string{"http/1.1", "h2c"}},
					Filters: []*Filter{{Name: "hcm", TypedConfig: &HTTPConnectionManager{
						StatPrefix: long, RDS: &RDS{ConfigSource: OverADS(), RouteConfigName: "80"},
						HTTPFilters: []*HTTPFilter{{Name: "router", TypedConfig: &Router{}}},
					}}},
				},
				{Name: "tcp", Filters: []*Filter{{Name: "tcp_proxy", TypedConfig: &TCPProxy{StatPrefix: "é", Cluster: "c"}}}},
			},
			UseOriginalDst: &BoolValue{Value: true}, BindToPort: &BoolValue{}, TrafficDirection: Outbound,
			Metadata: &Metadata{FilterMetadata: map[string]*Struct{"a": {Fields: map[string]*Value{
				"b": {Bool: new(false)}, "n": NumberValue(0.5), "z": {Null: new(NullValue)},
				"l": {List: &ListValue{Values: []*Value{StringValue(""), {Struct: &Struct{}}}}},
			}}}},
			ListenerFilters: []*ListenerFilter{{Name: "tls", TypedConfig: &TLSInspector{}}},
		}: &listenerpb.Listener{},
		&Cluster{
			Name: "c", Type: new(Static), ConnectTimeout: &Duration{Seconds: -3, Nanos: -7}, LbPolicy: ClusterProvided,
			TypedExtensionProtocolOptions: map[string]Message{"x": &HTTPProtocolOptions{UseDownstreamProtocol: &UseDownstreamHTTPConfig{HTTP1: &HTTP1Options{}}}},
			LoadAssignment: &ClusterLoadAssignment{ClusterName: "c", Endpoints: []*LocalityLbEndpoints{{LbEndpoints: []*LbEndpoint{{
				Endpoint: &Endpoint{Address: &Address{}}, Weight: &UInt32Value{Value: 1 << 31},
			}}}}},
		}: &clusterpb.Cluster{},
		&RouteConfiguration{Name: "80", VirtualHosts: []*VirtualHost{{
			Name: "v", Domains: []string{"*"}, Routes: []*Route{
				{Name: "r", Match: &RouteMatch{Prefix: new("")}, Route: &RouteAction{Cluster: new(""), Timeout: &Duration{}}},
				{Route: &RouteAction{WeightedClusters: &WeightedCluster{Clusters: []*ClusterWeight{{Name: "a"}, {Name: "b", Weight: &UInt32Value{}}}}}},
			},
		}}}: &routepb.RouteConfiguration{},
		&DeltaDiscoveryRequest{
			Node: &Node{ID: "n", Metadata: &Struct{}}, TypeURL: "t", Subscribe: []string{"", "a"}, Unsubscribe: []string{"b"},
			InitialResourceVersions: map[string]string{"a": "1", "": ""}, ResponseNonce: "2", ErrorDetail: &Status{Code: -1, Message: long},
		}: &discoverypb.DeltaDiscoveryRequest{},
		&DeltaDiscoveryResponse{
			SystemVersionInfo: "s", TypeURL: "t", Nonce: "n", RemovedResources: []string{"r"},
			Resources: []*Resource{{Name: "n", Version: "v", Resource: &Any{TypeURL: "type.googleapis.com/google.protobuf.BoolValue", Value: []byte{8, 1}}}},
		}: &discoverypb.DeltaDiscoveryResponse{},
	}
}

// TestAgainstGeneratedCode holds bytes, reading and JSON against the protobuf
// implementation.
func TestAgainstGeneratedCode(t *testing.T) {
	for own, theirs := range samples() {
		t.Run(own.FullName(), func(t *testing.T) {
			b, err := Marshal(own)
			if err != nil {
				t.Fatal(err)
			}
			if err := proto.Unmarshal(b, theirs); err != nil {
				t.Fatalf("generated code cannot read our bytes: %v", err)
			}
			canonical, err := proto.MarshalOptions{Deterministic: true}.Marshal(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) != len(canonical) { // the order of fields is free
				t.Errorf("bytes differ from those of generated code\n got %x\nwant %x", b, canonical)
			}
			back := newLike(own)
			if err := UnmarshalStrict(canonical, back); err != nil {
				t.Fatalf("cannot read generated code's bytes: %v", err)
			}
			again, err := Marshal(back)
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("reading and writing gives %x (%v), want %x", again, err, b)
			}
			if _, ok := own.(*DeltaDiscoveryResponse); ok {
				return // the content of its resources is not read, so there is no JSON of it
			}
			got, err := MarshalTypedJSON(own)
			if err != nil {
				t.Fatal(err)
			}
			typed, err := anypb.New(theirs)
			if err != nil {
				t.Fatal(err)
			}
			want, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(typed)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(normal(t, want), normal(t, got)); diff != "" {
				t.Errorf("JSON differs from protojson's (-want +got):\n%s", diff)
			}
		})
	}
}

func normal(t *testing.T, b []byte) any {
	t.Helper()
	v := &structpb.Value{}
	if err := protojson.Unmarshal(b, v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, b)
	}
	return v.AsInterface()
}

func newLike(m Message) Message {
	switch m.(type) {
	case *Listener:
		return &Listener{}
	case *Cluster:
		return &Cluster{}
	case *RouteConfiguration:
		return &RouteConfiguration{}
	case *DeltaDiscoveryRequest:
		return &DeltaDiscoveryRequest{}
	case *DeltaDiscoveryResponse:
		return &DeltaDiscoveryResponse{}
	}
	return nil
}

func TestUnmarshalRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		bytes  []byte
		strict bool
		want   string
	}{
		{"cut short", []byte{0x0a, 5, 'a'}, false, "envoy.config.listener.v3.Listener: unexpected EOF"},
		{"wrong type", []byte{0x08, 1}, false, "envoy.config.listener.v3.Listener field 1: wire type 0, want 2"},
		{"not UTF-8", []byte{0x0a, 1, 0xff}, false, "envoy.config.listener.v3.Listener field 1: string is not UTF-8"},
		{"unknown field", []byte{0x98, 0x06, 1}, true, "envoy.config.listener.v3.Listener: field 99 is not supported"},
		{"unknown extension", []byte{0x4a, 6, 0x1a, 4, 0x0a, 2, 'x', 'y'}, true, `envoy.config.listener.v3.Listener field 9: envoy.config.listener.v3.ListenerFilter field 3: message type "xy" is not supported`},
	} {
		var err error
		if c.strict {
			err = UnmarshalStrict(c.bytes, &Listener{})
		} else {
			err = Unmarshal(c.bytes, &Listener{})
		}
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: error %v, want %s", c.name, err, c.want)
		}
	}
	if err := Unmarshal([]byte{0x98, 0x06, 1}, &Listener{}); err != nil {
		t.Errorf("unknown field, not strict: %v", err)
	}
	if _, err := Marshal(&Listener{Name: "\xff"}); err == nil {
		t.Error("a name that is not UTF-8 was encoded")
	}
}

// FuzzUnmarshal wants that no input panics, and that what is read is written
// and read again as the same.
func FuzzUnmarshal(f *testing.F) {
	for m := range samples() {
		if b, err := Marshal(m); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for own := range samples() {
			m := newLike(own)
			if err := UnmarshalStrict(b, m); err != nil {
				continue
			}
			first, err := Marshal(m)
			if err != nil {
				t.Fatalf("read but cannot be written: %v", err)
			}
			again := newLike(own)
			if err := UnmarshalStrict(first, again); err != nil {
				t.Fatalf("written but cannot be read: %v", err)
			}
			second, err := Marshal(again)
			if err != nil || !bytes.Equal(first, second) {
				t.Fatalf("not stable: %x, then %x (%v)", first, second, err)
			}
			if _, err := MarshalTypedJSON(m); err != nil && !bytes.Contains([]byte(err.Error()), []byte("unsupported value")) {
				t.Fatalf("no JSON: %v", err)
			}
		}
	})
}
