package raftshim

import (
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

// AppendEntries sends one request, noting when. Heartbeats come this way too.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.Stalled(); err != nil {
		return err
	}
	sent := t.clock()
	if err := t.Inner.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	t.answered(id, args, resp, sent)
	return nil
}

// answered notes a success in the term in which it was asked for.
func (t *Transport) answered(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, sent time.Duration) {
	if resp.Success && resp.Term == args.Term {
		t.succeeded(id, protocol.Epoch(args.Term), sent, args.PrevLogEntry+uint64(len(args.Entries)))
	}
}

// RequestVote asks for a vote, unless the disk hangs.
func (t *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.Stalled(); err != nil {
		return err
	}
	t.candidacy.stood(args.Term)
	return t.Inner.RequestVote(id, target, args, resp)
}

// RequestPreVote asks whether a vote would be given, unless the disk hangs.
func (t *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.Stalled(); err != nil {
		return err
	}
	t.candidacy.asked(args.Term)
	answered := t.campaigns.ask(id, args)
	err := t.Inner.RequestPreVote(id, target, args, resp)
	answered(err == nil && resp.Granted)
	return err
}

// AppendEntriesPipeline opens a pipeline whose requests are noted like those
// of AppendEntries.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.Inner.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, t: t, id: id, sent: map[*raft.AppendEntriesRequest]time.Duration{},
		answers: make(chan raft.AppendFuture), done: make(chan struct{}), ended: make(chan struct{})}
	go p.relay()
	return p, nil
}

// pipeline notes when each request was sent, and what became of it before Raft
// learns of it.
type pipeline struct {
	raft.AppendPipeline
	t       *Transport
	id      raft.ServerID
	answers chan raft.AppendFuture
	done    chan struct{}
	ended   chan struct{}
	once    sync.Once
	err     error

	mu   sync.Mutex
	sent map[*raft.AppendEntriesRequest]time.Duration // under way; Raft bounds how many
}

// AppendEntries sends one request. Raft gives each a memory of its own, which
// comes back in the future: so it names the request.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if err := p.t.Stalled(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.sent[args] = p.t.clock()
	p.mu.Unlock()
	future, err := p.AppendPipeline.AppendEntries(args, resp)
	if err != nil {
		p.take(args)
	}
	return future, err
}

func (p *pipeline) take(args *raft.AppendEntriesRequest) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, there := p.sent[args]
	delete(p.sent, args)
	return sent, there
}

// relay hands on answers, noted.
func (p *pipeline) relay() {
	defer close(p.ended)
	incoming := p.AppendPipeline.Consumer()
	for {
		select {
		case future := <-incoming:
			sent, there := p.take(future.Request())
			if there && future.Error() == nil {
				p.t.answered(p.id, future.Request(), future.Response(), sent)
			}
			select {
			case p.answers <- future:
			case <-p.done:
				return
			}
		case <-p.done:
			return
		}
	}
}

// Consumer returns the answers.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close ends the pipeline. It may be called again.
func (p *pipeline) Close() error {
	p.once.Do(func() {
		close(p.done)
		p.err = p.AppendPipeline.Close()
		<-p.ended
	})
	return p.err
}
