package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// maxEventLen bounds one line of an event stream, in bytes.
	maxEventLen = 1 << 20
	// reconnectAfter is the pause before a lost stream is asked for again.
	reconnectAfter = time.Second
	// streamSilence is how long a stream may say nothing, not even that it
	// lives, before it is given up.
	streamSilence = 20 * time.Second
)

func setupEvents(fs *flag.FlagSet) runner {
	follow := fs.Bool("follow", false, "go on with what happens, until Ctrl-C")
	after := fs.Uint64("after", 0, "only events with a number above `N`")
	account := fs.Bool("failover", false, "where the time of the last failover went, of the node that took over")
	return func(a *app, in *input) error {
		c, err := a.client(in)
		if err != nil {
			return err
		}
		if *follow && *account {
			return misused("--follow and --failover do not go together")
		}
		if *follow {
			return a.follow(c, in, *after)
		}
		if *account {
			return a.account(c, in)
		}
		var answer struct {
			Events []json.RawMessage `json:"events"`
		}
		query := url.Values{"follow": {"false"}, "after": {fmt.Sprint(*after)}}
		if _, err := c.get(a.ctx, "/v1/events", query, &answer); err != nil {
			return err
		}
		for _, raw := range answer.Events {
			if err := a.event(in, raw); err != nil {
				return err
			}
		}
		return nil
	}
}

// account shows the steps of the last failover and how long each took.
func (a *app) account(c *client, in *input) error {
	var answer struct {
		Events []failover.Record `json:"events"`
	}
	if _, err := c.get(a.ctx, "/v1/events", url.Values{"follow": {"false"}}, &answer); err != nil {
		return err
	}
	f, ok := failover.LastFailover(answer.Events)
	if !ok {
		return errors.New("this node has not taken over since its journal begins: ask the primary (aiondb-ha status says which it is)")
	}
	if in.json {
		raw, err := json.Marshal(f)
		if err != nil {
			return err
		}
		return a.document(raw)
	}
	style := a.style()
	tab := term.NewTable("AT", "STEP", "", "", "").Right(0, 1)
	for _, r := range f.Steps {
		bar := strings.Repeat("▇", int(r.StepMS/max(f.TotalMS, 1)*accountWidth+0.5))
		tab.Row(fmt.Sprintf("%.1f ms", r.SinceMS), fmt.Sprintf("%.1f ms", r.StepMS), term.Safe(r.Event), style.Dim(bar), style.Dim(term.Safe(r.Detail)))
	}
	if err := tab.Write(a.stdout, style); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "\nepoch %d: %.1f ms since the primary before was last heard of\n", f.Epoch, f.TotalMS)
	return err
}

// accountWidth is how many columns the longest step could take.
const accountWidth = 24

// event prints one record.
func (a *app) event(in *input, raw []byte) error {
	if in.json {
		_, err := fmt.Fprintf(a.stdout, "%s\n", raw)
		return err
	}
	var r failover.Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("an event cannot be read: %w", err)
	}
	style := a.style()
	name := fmt.Sprintf("%-20s", term.Safe(r.Event))
	switch r.Event {
	case "PromotionComplete", "ElectionWon":
		name = style.Green(name)
	case "PrimaryLost", "PromotionFailed", "NoEligiblePrimary":
		name = style.Red(name)
	}
	step := ""
	if r.StepMS >= 0.5 {
		step = fmt.Sprintf("+%.0fms", r.StepMS)
	}
	var about []string
	if r.Node != protocol.NoNode {
		about = append(about, "node "+r.Node.String())
	}
	if r.Epoch > 0 {
		about = append(about, fmt.Sprintf("epoch %d", r.Epoch))
	}
	if r.Detail != "" {
		about = append(about, term.Safe(r.Detail))
	}
	line := fmt.Sprintf("%s  %7s  %s  %s", style.Dim(r.At.Local().Format("15:04:05.000")), step, name, strings.Join(about, ", "))
	_, err := fmt.Fprintln(a.stdout, strings.TrimRight(line, " "))
	return err
}

// follow prints events until the user has seen enough. A stream that ends is
// asked for again from where it ended; the first one must come about.
func (a *app) follow(c *client, in *input, after uint64) error {
	lastID := ""
	for connected := false; ; connected = true {
		err := a.stream(c, in, after, &lastID)
		var answer *apiError
		switch {
		case a.ctx.Err() != nil:
			return nil
		case err != nil && (!connected || errors.As(err, &answer) && answer.Status/100 == 4):
			return err
		}
		var out *outputError
		if errors.As(err, &out) {
			return err
		}
		if !connected || err == nil {
			fmt.Fprintf(a.stderr, "the stream from %s ended: trying again\n", c.base)
		}
		pause := time.NewTimer(reconnectAfter)
		select {
		case <-pause.C:
		case <-a.ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// outputError says that our own output failed: no stream will mend it.
type outputError struct{ error }

// stream reads one event stream to its end; nil means that it had begun.
func (a *app) stream(c *client, in *input, after uint64, lastID *string) error {
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	silence := time.AfterFunc(streamSilence, cancel)
	defer silence.Stop()
	header := http.Header{"Accept": {"text/event-stream"}}
	if *lastID != "" {
		header.Set("Last-Event-ID", *lastID)
	}
	resp, err := c.request(ctx, http.MethodGet, "/v1/events", url.Values{"after": {fmt.Sprint(after)}}, nil, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(io.Reader(resp.Body))
	lines.Buffer(nil, maxEventLen)
	for lines.Scan() {
		silence.Reset(streamSilence)
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			*lastID = id
		}
		if raw, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := a.event(in, []byte(raw)); err != nil {
				return &outputError{err}
			}
		}
	}
	return nil
}
