package intercept

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestChannel sends packets of all sizes, with and without descriptors.
func TestChannel(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newChannel(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	b, err := newChannel(pair[1])
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{0, 1, maxInline, maxInline + 1, 5 << 20} {
		for _, fds := range []int{0, 1, maxFDs} {
			sent := packet{kind: kindStart, id: 7, a: -1, b: 1 << 30, body: bytes.Repeat([]byte("x"), size)}
			for range fds {
				sent.fds = append(sent.fds, int(file.Fd()))
			}
			if err := a.send(&sent); err != nil {
				t.Fatal(err)
			}
			got, err := b.receive()
			if err != nil {
				t.Fatal(err)
			}
			if len(got.fds) != fds {
				t.Errorf("%d descriptors, want %d", len(got.fds), fds)
			}
			got.closeFDs()
			sent.fds = nil
			if !bytes.Equal(got.body, sent.body) || got.kind != sent.kind || got.id != sent.id || got.a != sent.a || got.b != sent.b {
				t.Errorf("a packet of %d bytes and %d descriptors was changed", size, fds)
			}
		}
	}
}

func FuzzUnmarshalHeader(f *testing.F) {
	p := packet{kind: kindSockets, id: 1, a: 2, b: 3}
	h := marshalHeader(&p, 0, 0)
	f.Add(h[:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, n, flags, err := unmarshalHeader(data)
		if err != nil {
			return
		}
		if n < 0 || n > maxBody {
			t.Fatalf("body of %d bytes", n)
		}
		again := marshalHeader(&p, n, flags)
		if flags == data[1] && !bytes.Equal(again[4:], data[4:headerLen]) {
			t.Fatalf("%x became %x", data[:headerLen], again)
		}
	})
}

func FuzzCStrings(f *testing.F) {
	f.Add([]byte(`"YQBiAA=="`))
	f.Add([]byte(`""`))
	f.Add([]byte(`"YQ=="`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s, again cStrings
		if json.Unmarshal(data, &s) != nil {
			return
		}
		out, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &again); err != nil || !slices.Equal(s, again) {
			t.Fatalf("%q became %q, %v", s, again, err)
		}
	})
}

func FuzzHostSearch(f *testing.F) {
	f.Add("nameserver 127.0.0.1\nsearch a.example b.example\n")
	f.Add("domain a.example\nsearch .\n")
	f.Fuzz(func(t *testing.T, conf string) {
		for _, s := range hostSearch(conf) {
			if s == "" || strings.ContainsAny(s, " \t\n") {
				t.Fatalf("%q gave %q", conf, s)
			}
		}
	})
}

func TestHostSearch(t *testing.T) {
	for conf, want := range map[string][]string{
		"":                              nil,
		"search .\n":                    nil,
		"domain a\n":                    {"a"},
		"search a b\nnameserver ::1":    {"a", "b"},
		"domain a\nsearch b c\n":        {"b", "c"},
		"# search a\n;search b\nsearch": nil,
	} {
		if diff := cmp.Diff(want, hostSearch(conf)); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", conf, diff)
		}
	}
}

// FuzzOrigDst: control messages come from the kernel, but bounds are checked here.
func FuzzOrigDst(f *testing.F) {
	f.Add([]byte{32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 53, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, oob []byte) {
		if dst, ok := origDstOf(oob); ok && !dst.IsValid() {
			t.Fatalf("%x gave %v", oob, dst)
		}
	})
}

// TestRemedies: the hosts that forbid cases are named with what mends them; the
// state of this host must not matter.
func TestRemedies(t *testing.T) {
	err := newSetupError(stepRules, unix.ENOENT)
	want := "build the case: load the nftables rules: no such file or directory (the kernel needs nf_tables with NAT and redirect: run " +
		"`modprobe -a nf_tables nft_redir nft_nat nft_chain_nat nft_tproxy nft_socket` as root)"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if got := remedy(stepNamespaces, unix.ENOSPC); !strings.Contains(got, "user.max_user_namespaces") {
		t.Errorf("ENOSPC: %q", got)
	}
	if got := remedy(stepNamespaces, unix.EINVAL); !strings.Contains(got, "CONFIG_USER_NS") {
		t.Errorf("EINVAL: %q", got)
	}
}

func TestSockaddr(t *testing.T) {
	for _, s := range []string{"127.0.0.1:80", "[fd77::2]:443"} {
		switch sa := sockaddr(netip.MustParseAddrPort(s)).(type) {
		case *unix.SockaddrInet4:
			if got := netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)); got.String() != s {
				t.Errorf("%s became %v", s, got)
			}
		case *unix.SockaddrInet6:
			if got := netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)); got.String() != s {
				t.Errorf("%s became %v", s, got)
			}
		}
	}
}
