package fsm

// tree is a sorted map whose nodes are never changed once they are reachable:
// an insert or remove makes new nodes along one path and shares all others
// with the tree before it (an AVL tree with path copying). A copy of the struct is
// therefore a snapshot, for free, that later changes to the original do not reach.
type tree[K, V any] struct {
	root    *node[K, V]
	size    int
	compare func(a, b K) int
}

type node[K, V any] struct {
	key         K
	value       V
	left, right *node[K, V]
	height      int8 // of the subtree, 1 for a leaf
}

// get returns the value of key.
func (t *tree[K, V]) get(key K) (value V, ok bool) {
	for n := t.root; n != nil; {
		switch c := t.compare(key, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n.value, true
		}
	}
	return value, false
}

// put sets the value of key.
func (t *tree[K, V]) put(key K, value V) { t.root = t.insert(t.root, key, value) }

func (t *tree[K, V]) insert(n *node[K, V], key K, value V) *node[K, V] {
	if n == nil {
		t.size++
		return &node[K, V]{key: key, value: value, height: 1}
	}
	switch c := t.compare(key, n.key); {
	case c < 0:
		return n.with(t.insert(n.left, key, value), n.right)
	case c > 0:
		return n.with(n.left, t.insert(n.right, key, value))
	}
	return &node[K, V]{key: key, value: value, left: n.left, right: n.right, height: n.height}
}

// remove takes key away, and reports whether it was there.
func (t *tree[K, V]) remove(key K) bool {
	if _, ok := t.get(key); !ok {
		return false
	}
	t.root = t.without(t.root, key)
	t.size--
	return true
}

// without returns n without key, which is in it.
func (t *tree[K, V]) without(n *node[K, V], key K) *node[K, V] {
	switch c := t.compare(key, n.key); {
	case c < 0:
		return n.with(t.without(n.left, key), n.right)
	case c > 0:
		return n.with(n.left, t.without(n.right, key))
	case n.left == nil:
		return n.right
	case n.right == nil:
		return n.left
	}
	next := n.right
	for next.left != nil {
		next = next.left
	}
	return next.with(n.left, t.without(n.right, next.key))
}

// ascend calls yield for each key from the first that is not below from, in
// order, until it returns false. It returns what the last call did.
func (t *tree[K, V]) ascend(from K, yield func(K, V) bool) bool {
	return t.walk(t.root, &from, yield)
}

// all calls yield for each key, in order, until it returns false.
func (t *tree[K, V]) all(yield func(K, V) bool) { t.walk(t.root, nil, yield) }

func (t *tree[K, V]) walk(n *node[K, V], from *K, yield func(K, V) bool) bool {
	if n == nil {
		return true
	}
	if from != nil && t.compare(n.key, *from) < 0 {
		return t.walk(n.right, from, yield)
	}
	// From here on everything to the right is in range.
	return t.walk(n.left, from, yield) && yield(n.key, n.value) && t.walk(n.right, nil, yield)
}

// with returns a new node with n's key and value and the given children, whose
// heights differ by at most 2, rotated so that they differ by at most 1.
func (n *node[K, V]) with(left, right *node[K, V]) *node[K, V] {
	switch d := left.h() - right.h(); {
	case d > 1:
		if left.left.h() < left.right.h() {
			mid := left.right
			return mid.join(left.join(left.left, mid.left), n.join(mid.right, right))
		}
		return left.join(left.left, n.join(left.right, right))
	case d < -1:
		if right.right.h() < right.left.h() {
			mid := right.left
			return mid.join(n.join(left, mid.left), right.join(mid.right, right.right))
		}
		return right.join(n.join(left, right.left), right.right)
	}
	return n.join(left, right)
}

// join returns a new node with n's key and value and the given children.
func (n *node[K, V]) join(left, right *node[K, V]) *node[K, V] {
	return &node[K, V]{key: n.key, value: n.value, left: left, right: right, height: 1 + max(left.h(), right.h())}
}

func (n *node[K, V]) h() int8 {
	if n == nil {
		return 0
	}
	return n.height
}
