package mesh

import (
	"net/netip"
	"testing"
)

func TestIsServiceVIP(t *testing.T) {
	for _, tt := range []struct {
		addr string
		want bool
	}{
		{"240.240.0.1", true},
		{"240.240.255.254", true},
		{"::ffff:240.240.0.1", true},
		{"240.241.0.1", false},
		{"127.77.0.2", false},
		{"2001:2::1", true},
		{"2001:2::ffff", true},
		{"2001:2::1:0", false},
		{"2001:2:0:1::1", false},
		{"::1", false},
	} {
		if got := IsServiceVIP(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("IsServiceVIP(%s) = %v", tt.addr, got)
		}
	}
	if IsServiceVIP(netip.Addr{}) {
		t.Error("no address is a virtual IP")
	}
}
