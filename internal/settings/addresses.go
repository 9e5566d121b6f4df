package settings

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	ha "github.com/aiondb/aiondb-ha"
)

// addresses reads where to listen and what to tell the others.
func (l *loader) addresses(out *Settings) {
	c := &out.Node
	advertise := ""
	if c.NodeID >= 1 && uint64(c.NodeID) <= uint64(len(c.Nodes)) {
		advertise = c.Nodes[c.NodeID-1]
	}
	if text, where := l.setting("advertise-addr"); text != "" {
		if why := notDialable(text); why != "" {
			l.faults.add("%s: %s", where, why)
		}
		advertise, c.AdvertiseAddr = text, text
	}
	l.checkLoopback(c, advertise)
	host, port := "", ha.DefaultPort
	if h, p, err := net.SplitHostPort(advertise); err == nil {
		host = h
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			port = int(n)
		}
	}
	host, port = l.bind(host, port)
	if c.BindAddr = net.JoinHostPort(host, strconv.Itoa(port)); host == "" {
		c.BindAddr = ""
	}
	out.APIAddr = l.listen("api-addr", "127.0.0.1", port, apiPortOffset)
	out.DataAddr = l.listen("data-addr", host, port, dataPortOffset)
	if out.APIAddr != "" && out.APIAddr == out.DataAddr && !strings.HasSuffix(out.APIAddr, ":0") {
		_, where := l.setting("data-addr")
		l.faults.add("%s: the data address %s is also the API's: give it a port of its own", where, out.DataAddr)
	}
}

// bind reads the HA port and the address it listens on; host and port are those
// of the advertised address.
func (l *loader) bind(host string, port int) (string, int) {
	portText, portWhere := l.setting("port")
	n, havePort := l.number("port", 1, 65535)
	if havePort {
		port = int(n)
	}
	text, where := l.setting("bind-addr")
	if text == "" {
		return host, port
	}
	h, p, err := net.SplitHostPort(text)
	if err != nil { // no port
		if ip, ipErr := netip.ParseAddr(text); ipErr == nil {
			return ip.String(), port // also an IPv6 address without brackets
		}
		if _, _, err := net.SplitHostPort(text + ":1"); err != nil {
			l.faults.add("%s: %q is no address: want host or host:port", where, text)
		}
		return text, port
	}
	bindPort, err := strconv.ParseUint(p, 10, 16)
	switch {
	case err != nil || bindPort == 0:
		l.faults.add("%s: %q: the port must be a number from 1 to 65535", where, text)
	case havePort && int(bindPort) != port:
		l.faults.add("%s: port %d contradicts %s, %s: unset one", where, bindPort, portWhere, portText)
	default:
		port = int(bindPort)
	}
	if h == "" {
		h = "0.0.0.0"
	}
	return h, port
}

// listen reads an address to listen on; port 0 lets the system choose.
func (l *loader) listen(name, host string, haPort, offset int) string {
	text, where := l.setting(name)
	if text == "" {
		if haPort+offset > 65535 {
			l.faults.add("%s is not set, and the HA port %d leaves no room for its default, %d higher: set it", where, haPort, offset)
			return ""
		}
		return net.JoinHostPort(host, strconv.Itoa(haPort+offset))
	}
	h, p, err := net.SplitHostPort(text)
	if err != nil {
		l.faults.add("%s: %q is no address: want host:port", where, text)
		return ""
	}
	if _, err := strconv.ParseUint(p, 10, 16); err != nil {
		l.faults.add("%s: %q: the port must be a number from 0 to 65535", where, text)
		return ""
	}
	if h == "" {
		h = "0.0.0.0"
	}
	return net.JoinHostPort(h, p)
}

// checkLoopback refuses to advertise this machine's loopback to other machines:
// they would dial themselves.
func (l *loader) checkLoopback(c *ha.Config, advertise string) {
	if !isLoopback(advertise) {
		return
	}
	for i, peer := range c.Nodes {
		if uint64(i+1) != uint64(c.NodeID) && notDialable(peer) == "" && !isLoopback(peer) {
			l.faults.add("%s: %s is this machine alone, but node %d is at %s: give the address the other nodes reach this one at",
				Option{Name: "advertise-addr"}.Env(), advertise, i+1, peer)
			return
		}
	}
}

// notDialable says why other nodes cannot dial addr; "" if they can.
func notDialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return fmt.Sprintf("%q is no address: want host:port", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Sprintf("%q: the port must be a number from 1 to 65535", addr)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsUnspecified() {
		return fmt.Sprintf("%s means every interface of a machine, nobody else can dial it: give the address the other nodes reach it at", addr)
	}
	return ""
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
