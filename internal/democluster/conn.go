package democluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/aiondb/aiondb-ha/internal/walplane"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// dialTimeout bounds a connection attempt on loopback.
	dialTimeout = 250 * time.Millisecond
	// maxIdle is how long a connection may rest and still be used.
	maxIdle = 200 * time.Millisecond
	// maxReply bounds an answer to a write, bytes.
	maxReply = 64 << 10

	// codeUnknownOutcome is what a primary says of a write that it could not
	// bring to its end in time.
	codeUnknownOutcome = "unknown_outcome"
)

// reply is a node's answer to a write.
type reply struct {
	status  int
	valid   time.Duration   // since the request arrived; 0: without limit
	Epoch   protocol.Epoch  `json:"epoch"`
	LSN     protocol.LSN    `json:"lsn"`
	Primary protocol.NodeID `json:"primary"` // whom to ask instead
	Code    string          `json:"code"`
	Message string          `json:"error"`
}

// acked reports whether the answer is an acknowledgement, if it is in time.
func (r reply) acked() bool { return r.status == http.StatusOK && r.Epoch > 0 }

// late reports whether the answer came when it was not valid any more, took
// after the request was sent: then it tells nothing. What was sent arrived
// later than it was sent, so this errs towards late.
func (r reply) late(took time.Duration) bool { return r.valid > 0 && took > r.valid }

// conn is one HTTP connection, used by one goroutine at a time. It speaks HTTP
// by hand so that the goroutine that waits for the answer is the one that
// reads it and looks at the clock: nothing sits between the two.
type conn struct {
	net.Conn
	r    *bufio.Reader
	used time.Time // last
}

// idle reports whether the connection has rested for so long that the node
// behind it may be another by now.
func (c *conn) idle() bool { return time.Since(c.used) > maxIdle }

func dial(ctx context.Context, addr string) (*conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, r: bufio.NewReader(c), used: time.Now()}, nil
}

// send writes a PUT of one key. A send that failed must be followed by Close.
func (c *conn) send(key, value string) error {
	c.used = time.Now()
	_, err := fmt.Fprintf(c, "PUT /v1/data/%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s",
		key, c.RemoteAddr(), len(value), value)
	return err
}

// receive reads the answer to what was sent. After an error the connection is
// of no use, except that a timeout may be waited out with another receive if
// nothing had arrived yet.
func (c *conn) receive() (reply, error) {
	if _, err := c.r.Peek(1); err != nil { // consumes nothing: see above
		return reply{}, err
	}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: http.MethodPut})
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return reply{}, err
	}
	answer := reply{status: resp.StatusCode}
	if text := resp.Header.Get(walplane.HeaderValid); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return reply{}, fmt.Errorf("answer to a write: %s: %w", walplane.HeaderValid, err)
		}
		answer.valid = max(time.Duration(ms)*time.Millisecond, 1)
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return reply{}, fmt.Errorf("answer to a write, status %d: %w", resp.StatusCode, err)
	}
	if resp.Close {
		_ = c.Close() // the next send fails, and the caller connects anew
	}
	return answer, nil
}
