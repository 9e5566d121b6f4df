package fsm

import (
	"container/heap"
	"context"
	"sync"
)

// waiters holds those who wait for an index, lowest first. They are told by
// whoever applies it; nobody polls.
type waiters struct {
	mu      sync.Mutex
	applied uint64
	failed  error // once set, nobody waits any more
	queue   waiterQueue
}

type waiter struct {
	index uint64
	at    int           // position in the queue; -1: taken out
	done  chan struct{} // closed by advance or fail
}

// wait returns nil as soon as index is applied, the error of fail if that is
// called before, or the cause of ctx's end.
func (w *waiters) wait(ctx context.Context, index uint64) error {
	w.mu.Lock()
	if w.applied >= index {
		w.mu.Unlock()
		return nil
	}
	if err := w.failed; err != nil {
		w.mu.Unlock()
		return err
	}
	me := &waiter{index: index, done: make(chan struct{})}
	heap.Push(&w.queue, me)
	w.mu.Unlock()

	select {
	case <-me.done:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if me.at >= 0 {
		heap.Remove(&w.queue, me.at)
	}
	switch {
	case w.applied >= index:
		return nil
	case w.failed != nil:
		return w.failed
	}
	return context.Cause(ctx)
}

// advance tells those who wait for index or less. The index may go back, by a
// restore; who was told before is not told again.
func (w *waiters) advance(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applied = index
	for len(w.queue) > 0 && w.queue[0].index <= index {
		close(heap.Pop(&w.queue).(*waiter).done)
	}
}

// fail tells all who wait, and all who come later for an index that is not
// applied, that it will never be.
func (w *waiters) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
	for len(w.queue) > 0 {
		close(heap.Pop(&w.queue).(*waiter).done)
	}
}

// waiterQueue implements heap.Interface.
type waiterQueue []*waiter

func (q waiterQueue) Len() int           { return len(q) }
func (q waiterQueue) Less(i, j int) bool { return q[i].index < q[j].index }

func (q waiterQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *waiterQueue) Push(x any) {
	w := x.(*waiter)
	w.at = len(*q)
	*q = append(*q, w)
}

func (q *waiterQueue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	w.at = -1
	return w
}
