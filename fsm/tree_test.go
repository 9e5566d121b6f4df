package fsm

import (
	"cmp"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// The tree against a map, and every snapshot of it against a copy of the map.
func TestTreeAgainstMap(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		now := tree[int, int]{compare: cmp.Compare[int]}
		twin := map[int]int{}
		type moment struct {
			tree tree[int, int]
			twin map[int]int
		}
		var past []moment
		for step := range 2000 {
			key := rng.IntN(200)
			if rng.IntN(5) < 2+step/1000 { // grows first, shrinks later
				_, had := twin[key]
				delete(twin, key)
				if now.remove(key) != had {
					t.Fatalf("seed %d: remove(%d) should say %v", seed, key, had)
				}
			} else {
				twin[key] = step
				now.put(key, step)
			}
			if step%100 == 0 {
				past = append(past, moment{now, maps.Clone(twin)})
			}
			checkTree(t, &now)
		}
		for _, m := range append(past, moment{now, twin}) {
			keys := slices.Sorted(maps.Keys(m.twin))
			var got []int
			for key, value := range m.tree.all {
				if value != m.twin[key] {
					t.Fatalf("seed %d: %d is %d, want %d", seed, key, value, m.twin[key])
				}
				got = append(got, key)
			}
			if !slices.Equal(got, keys) || m.tree.size != len(keys) {
				t.Fatalf("seed %d: %v (size %d), want %v", seed, got, m.tree.size, keys)
			}
			for key := range 200 {
				want, ok := m.twin[key]
				if value, has := m.tree.get(key); has != ok || value != want {
					t.Fatalf("seed %d: get(%d) is %d, %v, want %d, %v", seed, key, value, has, want, ok)
				}
			}
			from, limit := rng.IntN(220)-10, rng.IntN(20)
			first, _ := slices.BinarySearch(keys, from)
			got = got[:0]
			m.tree.ascend(from, func(key, _ int) bool {
				got = append(got, key)
				return len(got) <= limit
			})
			if want := keys[first:min(first+limit+1, len(keys))]; !slices.Equal(got, want) {
				t.Fatalf("seed %d: ascend(%d) gives %v, want %v", seed, from, got, want)
			}
		}
	}
}

// checkTree looks at heights, order and size.
func checkTree(t *testing.T, tr *tree[int, int]) {
	t.Helper()
	count := 0
	var height func(n *node[int, int]) int8
	height = func(n *node[int, int]) int8 {
		if n == nil {
			return 0
		}
		count++
		l, r := height(n.left), height(n.right)
		if l-r > 1 || r-l > 1 || n.height != 1+max(l, r) {
			t.Fatalf("node %d: height %d over %d and %d", n.key, n.height, l, r)
		}
		return n.height
	}
	if h := height(tr.root); int(h) > 2*bits.Len(uint(count)) || count != tr.size {
		t.Fatalf("height %d, %d nodes, size %d", h, count, tr.size)
	}
}
