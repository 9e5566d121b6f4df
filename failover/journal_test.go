package failover

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
)

func TestJournalIsARing(t *testing.T) {
	var j journal
	if got := j.after(0); len(got) != 0 {
		t.Errorf("empty: %v", got)
	}
	for range JournalSize + 10 {
		j.add(Record{Event: "x"})
	}
	all := j.after(0)
	if len(all) != JournalSize || all[0].Seq != 11 || all[len(all)-1].Seq != JournalSize+10 {
		t.Errorf("%d records from %d", len(all), all[0].Seq)
	}
	for i := range all[1:] {
		if all[i+1].Seq != all[i].Seq+1 {
			t.Fatalf("%d behind %d", all[i+1].Seq, all[i].Seq)
		}
	}
	if got := j.after(JournalSize + 8); len(got) != 2 || got[0].Seq != JournalSize+9 {
		t.Errorf("after: %v", got)
	}
	for _, seq := range []uint64{JournalSize + 10, JournalSize + 11, 1<<64 - 1} {
		if got := j.after(seq); len(got) != 0 {
			t.Errorf("after the last: %v", got)
		}
	}
}

func TestSlowReaderLosesTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		slow := j.subscribe(ctx)
		for range subscriberBuffer + 50 {
			j.add(Record{Event: "x"})
		}
		synctest.Wait()
		for range 3 * subscriberBuffer {
			j.add(Record{Event: "y"})
		}
		j.close()
		var seqs []uint64
		skipped := 0
		for r := range slow {
			if r.Event == RecordsSkipped {
				skipped++
				continue
			}
			seqs = append(seqs, r.Seq)
		}
		if skipped == 0 {
			t.Error("not told of what was lost")
		}
		if last := seqs[len(seqs)-1]; last != 4*subscriberBuffer+50 {
			t.Errorf("the last record read is %d", last)
		}
		if len(seqs) > 2*subscriberBuffer+1 {
			t.Errorf("%d records were kept for a reader that did not read", len(seqs))
		}
		for i := range seqs[1:] {
			if seqs[i+1] <= seqs[i] {
				t.Fatalf("%d after %d", seqs[i+1], seqs[i])
			}
		}
		if _, open := <-j.subscribe(ctx); open {
			t.Error("subscribed to a closed journal")
		}
	})
}

func TestReadersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithCancel(t.Context())
		for range maxSubscribers {
			j.subscribe(ctx)
		}
		if _, open := <-j.subscribe(ctx); open {
			t.Error("one reader too many")
		}
		cancel()
		synctest.Wait()
		if len(j.readers) != 0 {
			t.Errorf("%d readers left", len(j.readers))
		}
	})
}

func TestRecordJSON(t *testing.T) {
	raw, err := json.Marshal(DriverStatus{State: Promoted})
	if err != nil {
		t.Fatal(err)
	}
	var back DriverStatus
	if err := json.Unmarshal(raw, &back); err != nil || back.State != Promoted {
		t.Errorf("%s: %+v, %v", raw, back, err)
	}
	for state := Idle; state <= Promoted+1; state++ {
		text, _ := state.MarshalText()
		var read State
		if err := read.UnmarshalText(text); (err == nil) != (state <= Promoted) || err == nil && read != state {
			t.Errorf("state %s is read as %s, %v", text, read, err)
		}
	}
}
