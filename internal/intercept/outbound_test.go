package intercept_test

import (
	"testing"
)

func TestOutboundOriginalDestination(t *testing.T) {
	c := startCase(t, config(t))
	serveOutbound(t, c)
	for _, tc := range []struct{ network, addr, want string }{
		{"tcp4", "240.240.0.1:80", "dst=240.240.0.1:80 src=10.77.0.2 localhost=false"},
		{"tcp4", "192.0.2.1:65535", "dst=192.0.2.1:65535 src=10.77.0.2 localhost=false"},
		{"tcp6", "[2001:2::1]:8080", "dst=[2001:2::1]:8080 src=fd77::2 localhost=false"},
		{"tcp4", "127.0.0.1:5432", "dst=127.0.0.1:5432 src=127.0.0.1 localhost=true"},
		{"tcp4", "127.1.2.3:5432", "dst=127.1.2.3:5432 src=127.0.0.1 localhost=true"},
		{"tcp6", "[::1]:5432", "dst=[::1]:5432 src=::1 localhost=true"},
	} {
		if got := run(t, c, "get", tc.network, tc.addr); got != tc.want {
			t.Errorf("connect to %s: got %q, want %q", tc.addr, got, tc.want)
		}
	}
}
