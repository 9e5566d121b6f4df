package sim

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/protocol"
)

// rpcPatience is how long Raft waits for an answer on a connection, as the
// product's transport does.
const rpcPatience = 2 * time.Second

// wire is the raft.Transport of a process, below raftshim's.
type wire struct {
	p        *process
	consumer chan raft.RPC
	done     chan struct{}
	once     sync.Once
}

var _ raftshim.Inner = (*wire)(nil)

func newWire(p *process) *wire {
	return &wire{p: p, consumer: make(chan raft.RPC), done: make(chan struct{})}
}

func address(id protocol.NodeID) raft.ServerAddress { return raft.ServerAddress("raft-" + id.String()) }

func (w *wire) Consumer() <-chan raft.RPC                               { return w.consumer }
func (w *wire) LocalAddr() raft.ServerAddress                           { return address(w.p.id) }
func (w *wire) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }
func (w *wire) DecodePeer(peer []byte) raft.ServerAddress               { return raft.ServerAddress(peer) }
func (w *wire) SetHeartbeatHandler(func(raft.RPC))                      {}
func (w *wire) Close() error                                            { w.once.Do(func() { close(w.done) }); return nil }

// rpc asks the Raft of another node.
func rpc[R any](w *wire, to raft.ServerID, command any, data []byte, patience time.Duration, out *R) error {
	select {
	case <-w.done:
		return raft.ErrTransportShutdown
	default:
	}
	answer, err := call(w.p, raftshim.ParseServerID(to), patience, func(there *process) (R, error) {
		return served[R](there, w.p.id, command, data)
	})
	if err == nil {
		*out = answer
	}
	return err
}

// served hands a message to the Raft of p and returns its answer.
func served[R any](p *process, from protocol.NodeID, command any, data []byte) (R, error) {
	var none R
	if rogue, is := command.(*raft.TimeoutNowRequest); is && p.c.broken.timeoutNowFromAnyone {
		if _, leader := p.raft.LeaderWithID(); leader != "" {
			command = &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: rogue.ProtocolVersion, ID: []byte(leader)}}
		}
	}
	answers := make(chan raft.RPCResponse, 1)
	message := raft.RPC{Command: command, RespChan: answers}
	if data != nil {
		message.Reader = bytes.NewReader(data)
	}
	select {
	case p.wire.consumer <- message:
	case <-p.dead:
		return none, errDead
	case <-p.wire.done:
		return none, errUnreachable
	}
	select {
	case answer := <-answers:
		if answer.Error != nil {
			return none, answer.Error
		}
		out, is := answer.Response.(pointer[R])
		if !is {
			return none, errors.New("an answer of another type")
		}
		if reply, is := any(out).(*raft.AppendEntriesResponse); is && reply.Success {
			p.c.ledger.helped(p, protocol.Epoch(command.(*raft.AppendEntriesRequest).Term))
		}
		return *out, nil
	case <-p.dead:
		return none, errDead
	case <-p.wire.done:
		return none, errUnreachable
	}
}

// pointer is how Raft answers.
type pointer[R any] = *R

func (w *wire) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	request := *args
	err := rpc(w, id, &request, nil, rpcPatience, resp)
	if err == nil && resp.Success && w.p.c.broken.stampAtReceipt {
		w.p.stampLate(id, protocol.Epoch(args.Term))
	}
	return err
}

func (w *wire) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	request := *args
	return rpc(w, id, &request, nil, rpcPatience, resp)
}

func (w *wire) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	request := *args
	return rpc(w, id, &request, nil, rpcPatience, resp)
}

func (w *wire) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	request := *args
	return rpc(w, id, &request, nil, rpcPatience, resp)
}

func (w *wire) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	all, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	request := *args
	return rpc(w, id, &request, all, 10*rpcPatience, resp)
}

// AppendEntriesPipeline opens a pipeline: requests arrive in the order in which
// they are sent, one behind the other.
func (w *wire) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p := &pipe{w: w, id: id, to: to, sent: make(chan *flight, pipeDepth), answered: make(chan raft.AppendFuture), done: make(chan struct{})}
	w.p.c.tasks.Go(p.carry)
	return p, nil
}

// pipeDepth bounds the requests under way, as the product's transport does.
const pipeDepth = 64

type pipe struct {
	w        *wire
	id       raft.ServerID
	to       raft.ServerAddress
	sent     chan *flight
	answered chan raft.AppendFuture
	done     chan struct{}
	once     sync.Once
}

// flight is one request under way. It implements raft.AppendFuture.
type flight struct {
	began time.Time
	args  *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	err   error
	ended chan struct{}
}

func (f *flight) Error() error                          { <-f.ended; return f.err }
func (f *flight) Start() time.Time                      { return f.began }
func (f *flight) Request() *raft.AppendEntriesRequest   { return f.args }
func (f *flight) Response() *raft.AppendEntriesResponse { return f.resp }

func (p *pipe) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	f := &flight{began: time.Now(), args: args, resp: resp, ended: make(chan struct{})}
	select {
	case <-p.done:
		return nil, raft.ErrPipelineShutdown
	default:
	}
	select {
	case p.sent <- f:
		return f, nil
	case <-p.done:
		return nil, raft.ErrPipelineShutdown
	case <-p.w.p.dead:
		return nil, errDead
	}
}

func (p *pipe) carry() {
	for {
		select {
		case f := <-p.sent:
			f.err = p.w.AppendEntries(p.id, p.to, f.args, f.resp)
			close(f.ended)
			select {
			case p.answered <- f:
			case <-p.done:
				return
			}
		case <-p.done:
			return
		case <-p.w.p.dead:
			<-p.done // Raft closes what it has opened
			return
		}
	}
}

func (p *pipe) Consumer() <-chan raft.AppendFuture { return p.answered }

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}
