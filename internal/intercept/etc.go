package intercept

import (
	"fmt"
	"os"
	"strings"
)

// resolvConf is the case's resolv.conf: queries to any address are captured, the
// search list of the host comes after ours.
func resolvConf(cfg *Config) []byte {
	search := append([]string(nil), cfg.Search...)
	if host, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		search = append(search, hostSearch(string(host))...)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# of the glass case; every query to port 53 is answered by its proxy\nnameserver %v\n", cfg.IP4)
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	b.WriteString("options ndots:1\n")
	return []byte(b.String())
}

// hostSearch reads the search list of a resolv.conf (resolv.conf(5): the last
// "search" or "domain" line counts).
func hostSearch(conf string) (search []string) {
	for line := range strings.Lines(conf) {
		fields := strings.Fields(line)
		if len(fields) > 1 && (fields[0] == "search" || fields[0] == "domain") {
			search = fields[1:]
		}
	}
	if len(search) == 1 && search[0] == "." {
		return nil
	}
	return search
}

// hostsFile is the host's file with the case's own name added.
func hostsFile(host []byte, cfg *Config) []byte {
	var b strings.Builder
	b.Write(host)
	if len(host) > 0 && host[len(host)-1] != '\n' {
		b.WriteByte('\n')
	}
	if cfg.Hostname != "" {
		fmt.Fprintf(&b, "%v\t%s\n", cfg.IP4, cfg.Hostname)
		if cfg.IP6.IsValid() {
			fmt.Fprintf(&b, "%v\t%s\n", cfg.IP6, cfg.Hostname)
		}
	}
	return []byte(b.String())
}
