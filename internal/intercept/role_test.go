package intercept_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// exitError is the result of a role that ends with a code of its own.
type exitError int

func (e exitError) Error() string { return "exit code " + strconv.Itoa(int(e)) }

// play runs this test binary as a program in a case. Roles print one line when
// they are ready, and their result to stdout.
func play(role string, args []string) error {
	// Holding the default action of a signal in reserve keeps "block" from
	// looking like a deadlock to the runtime.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGWINCH)
	defer stop()
	switch role {
	case "get": // get NETWORK ADDR: connects and copies what the peer says
		c, err := new(net.Dialer).DialContext(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		defer c.Close()
		if len(args) > 2 {
			if _, err := io.WriteString(c, args[2]); err != nil {
				return err
			}
		}
		if strings.HasPrefix(args[0], "udp") {
			buf := make([]byte, 2048)
			n, err := c.Read(buf)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stdout, "%s", buf[:n])
			return nil
		}
		_, err = io.Copy(os.Stdout, c)
		return err
	case "refused": // refused NETWORK ADDR: says how the peer refuses what is sent
		c, err := new(net.Dialer).DialContext(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.WriteString(c, "hello"); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1))
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			return fmt.Errorf("not refused: %w", err)
		}
		fmt.Fprintln(os.Stdout, errno)
		return nil
	case "tries": // tries NETWORK ADDR: sends each line of stdin, and says what comes back to it
		c, err := new(net.Dialer).DialContext(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 2048)
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			var n int
			if _, err = c.Write(s.Bytes()); err == nil {
				n, err = c.Read(buf)
			}
			var errno syscall.Errno
			switch {
			case err == nil:
				fmt.Fprintf(os.Stdout, "%s\n", buf[:n])
			case errors.As(err, &errno):
				fmt.Fprintln(os.Stdout, errno)
			default:
				return err
			}
		}
		return nil
	case "say": // say NETWORK ADDR DATA: says it and waits for nothing
		c, err := new(net.Dialer).DialContext(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.WriteString(c, args[2])
		return err
	case "ends": // ends NETWORK ADDR: tells every peer its address, and its own, until stdin ends
		l, err := new(net.ListenConfig).Listen(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "ready")
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "hello %s at %s", host, c.LocalAddr())
				c.Close()
			}
		}()
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "serve": // serve NETWORK ADDR: tells every peer its address, until stdin ends
		l, err := new(net.ListenConfig).Listen(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "ready")
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "hello %s", c.RemoteAddr())
				c.Close()
			}
		}()
		_, _ = io.Copy(io.Discard, os.Stdin)
		return l.Close()
	case "lookup": // lookup NAME...
		for _, name := range args {
			addrs, err := net.DefaultResolver.LookupHost(ctx, name)
			if err != nil {
				return err
			}
			fmt.Fprintln(os.Stdout, name, strings.Join(addrs, " "))
		}
		return nil
	case "dig": // dig NETWORK SERVER "NAME TYPE"...
		client := dns.Client{Net: args[0], Timeout: patience}
		for _, arg := range args[2:] {
			name, typ, _ := strings.Cut(arg, " ")
			m := new(dns.Msg)
			m.SetQuestion(name, dns.StringToType[typ])
			r, _, err := client.ExchangeContext(ctx, m, args[1])
			if err != nil {
				return err
			}
			line := []string{dns.RcodeToString[r.Rcode]}
			for i, rr := range slices.Concat(r.Answer, r.Extra) {
				if i == len(r.Answer) {
					line = append(line, "with")
				}
				text := strings.TrimPrefix(rr.String(), rr.Header().String())
				line = append(line, dns.TypeToString[rr.Header().Rrtype], text)
			}
			fmt.Fprintln(os.Stdout, strings.Join(line, " "))
		}
		return nil
	case "digsize": // digsize NETWORK SERVER "NAME TYPE[/SIZE]": counts the records, SIZE is EDNS0's
		name, typ, _ := strings.Cut(args[2], " ")
		typ, edns, hasEDNS := strings.Cut(typ, "/")
		m := new(dns.Msg)
		m.SetQuestion(name, dns.StringToType[typ])
		if hasEDNS {
			size, err := strconv.ParseUint(edns, 10, 16)
			if err != nil {
				return err
			}
			m.SetEdns0(uint16(size), false)
		}
		r, _, err := (&dns.Client{Net: args[0], Timeout: patience}).ExchangeContext(ctx, m, args[1])
		if err != nil {
			return err
		}
		line, extra := dns.RcodeToString[r.Rcode], len(r.Extra)
		opt := r.IsEdns0()
		if opt != nil {
			extra--
		}
		if r.Truncated {
			line += " TC"
		} else {
			line += fmt.Sprintf(" %d and %d", len(r.Answer), extra)
		}
		if opt != nil {
			line += fmt.Sprintf(" EDNS %d", opt.UDPSize())
		}
		fmt.Fprintln(os.Stdout, line)
		return nil
	case "srv": // srv SERVICE PROTO NAME
		_, records, err := net.DefaultResolver.LookupSRV(ctx, args[0], args[1], args[2])
		if err != nil {
			return err
		}
		for _, r := range records {
			fmt.Fprintf(os.Stdout, "%s:%d\n", r.Target, r.Port)
		}
		return nil
	case "pingpong": // pingpong NETWORK ADDR: five questions in one flow
		c, err := new(net.Dialer).DialContext(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		defer c.Close()
		var said []string
		for i := range 5 {
			fmt.Fprint(c, i)
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if err != nil {
				return err
			}
			said = append(said, string(buf[:n]))
		}
		fmt.Fprintln(os.Stdout, strings.Join(said, ","))
		return nil
	case "manyflows": // manyflows ADDR N: counts the answers to N sockets, asking again as one does with UDP
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		answered := 0
		for range n {
			c, err := new(net.Dialer).DialContext(ctx, "udp4", args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			for end := time.Now().Add(patience); time.Now().Before(end); {
				fmt.Fprint(c, "hello")
				_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
				if _, err := c.Read(make([]byte, 100)); err == nil {
					answered++
					break
				}
			}
		}
		fmt.Fprintln(os.Stdout, answered)
		return nil
	case "udpecho": // udpecho ADDR: answers "inside DATA" until stdin ends
		pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp", args[0])
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "ready")
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(append([]byte("inside "), buf[:n]...), from)
			}
		}()
		_, _ = io.Copy(io.Discard, os.Stdin)
		return pc.Close()
	case "lines": // echoes the lines of stdin
		s := bufio.NewScanner(os.Stdin)
		for s.Scan() {
			fmt.Fprintln(os.Stdout, "got", s.Text())
		}
		return s.Err()
	case "forbidden": // tries what takes rights that no program of a case has, and says what was allowed
		for _, attempt := range attempts() {
			if err := attempt.try(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
				fmt.Fprintf(os.Stdout, "%s: %v\n", attempt.name, err)
			}
		}
		return nil
	case "trap": // exits with 7 on SIGTERM
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Fprintln(os.Stdout, "ready")
		<-c
		return exitError(7)
	case "connects": // connects ADDR: for every byte of stdin a connection that echoes it
		fmt.Fprintln(os.Stdout, "ready")
		buf := make([]byte, 1)
		for {
			if _, err := os.Stdin.Read(buf); err != nil {
				return nil // the end of the role
			}
			c, err := new(net.Dialer).DialContext(ctx, "tcp", args[0])
			if err != nil {
				return err
			}
			if _, err := c.Write(buf); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, buf); err != nil {
				return err
			}
			c.Close()
			if _, err := os.Stdout.Write(buf); err != nil {
				return err
			}
		}
	case "block": // until a signal ends it
		<-ctx.Done()
		return ctx.Err()
	case "tree": // with a child and a daemon that leaves the session
		for _, attr := range []*syscall.SysProcAttr{{}, {Setsid: true}} {
			child := exec.CommandContext(ctx, "/proc/self/exe", "role", "block")
			child.SysProcAttr = attr
			if err := child.Start(); err != nil {
				return err
			}
		}
		fmt.Fprintln(os.Stdout, "ready")
		<-ctx.Done()
		return ctx.Err()
	case "offline": // offline ADDR...: says how a case refuses UDP to each
		return playOffline(ctx, args)
	case "sidecar":
		return playSidecar(ctx)
	}
	return errors.New("unknown role")
}

type attempt struct {
	name string
	try  func() error
}

// attempts would change the case that a program is in, or bring it out.
func attempts() []attempt {
	return []attempt{
		{"delete the rules", func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			conn.FlushRuleset()
			return conn.Flush()
		}},
		{"take the loopback interface down", func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetDown(lo)
		}},
		{"mount", func() error { return unix.Mount("none", "/mnt", "tmpfs", 0, "") }},
		{"enter the namespace of process 1", func() error {
			fd, err := unix.Open("/proc/1/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Setns(fd, unix.CLONE_NEWNET)
		}},
	}
}
