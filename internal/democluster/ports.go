package democluster

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
)

const (
	loopback = "127.0.0.1"

	// lowestPort is the first port tried: below it live the services people
	// know by number.
	lowestPort = 10000
	// ephemeralFrom is where the kernel starts to hand out ports for outgoing
	// connections when it does not say otherwise. A port above that may be
	// taken by any connection while its node is down, so none is used.
	ephemeralFrom = 32768
	// minPortRange is the smallest range worth searching.
	minPortRange = 1000
	// portTries bounds the search.
	portTries = 4000
)

// errNoPorts says that the search for free ports gave up.
var errNoPorts = errors.New("no free ports on " + loopback)

// portSet is a number of ports that were free on TCP and UDP when they were
// chosen, and are reserved against other clusters of ours on this machine
// until Close.
type portSet struct {
	ports    []int
	reserved []io.Closer
}

// choosePorts finds n free ports below the ephemeral range, beginning at a
// random place so that clusters started at the same moment do not meet.
func choosePorts(n int) (*portSet, error) {
	first, limit := lowestPort, ephemeralLow()
	if limit-first < minPortRange {
		limit = ephemeralFrom // the kernel's range covers everything: the usual bound is as good as any
	}
	set := &portSet{}
	var open []io.Closer // held until all are found, so that none is found twice
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	at := first + rand.IntN(limit-first)
	for range portTries {
		if len(set.ports) == n {
			return set, nil
		}
		if at++; at >= limit {
			at = first
		}
		reservation, err := reservePort(at)
		if err != nil {
			continue
		}
		held, err := holdPort(at)
		if err != nil {
			_ = reservation.Close()
			continue
		}
		open = append(open, held...)
		set.ports = append(set.ports, at)
		set.reserved = append(set.reserved, reservation)
	}
	_ = set.Close()
	return nil, fmt.Errorf("%w: wanted %d between %d and %d", errNoPorts, n, first, limit-1)
}

// Close gives the reservations back. The ports may still be in use.
func (s *portSet) Close() error {
	for _, r := range s.reserved {
		_ = r.Close()
	}
	s.reserved = nil
	return nil
}

// holdPort binds the port on TCP and UDP.
func holdPort(port int) ([]io.Closer, error) {
	addr := net.JoinHostPort(loopback, strconv.Itoa(port))
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	return []io.Closer{tcp, udp}, nil
}

// ephemeralLow reads where the kernel's range for outgoing connections begins.
func ephemeralLow() int {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return ephemeralFrom
	}
	fields := strings.Fields(string(raw))
	if len(fields) == 0 {
		return ephemeralFrom
	}
	low, err := strconv.Atoi(fields[0])
	if err != nil || low <= 0 || low > ephemeralFrom {
		return ephemeralFrom
	}
	return low
}
