package delivery

// ordered is a binary heap whose elements know their place in it, so that one in
// the middle can be moved or taken out in O(log n).
type ordered[T any] struct {
	items []*T
	less  func(a, b *T) bool
	place func(*T) *int // where an element keeps its place; -1: not in this heap
}

func (h *ordered[T]) len() int { return len(h.items) }

func (h *ordered[T]) top() *T {
	if len(h.items) == 0 {
		return nil
	}
	return h.items[0]
}

func (h *ordered[T]) push(x *T) {
	*h.place(x) = len(h.items)
	h.items = append(h.items, x)
	h.up(len(h.items) - 1)
}

func (h *ordered[T]) remove(x *T) {
	i, last := *h.place(x), len(h.items)-1
	h.swap(i, last)
	h.items[last] = nil
	h.items = h.items[:last]
	*h.place(x) = -1
	if i < last {
		h.fix(h.items[i])
	}
}

// fix restores the order after x has changed.
func (h *ordered[T]) fix(x *T) {
	i := *h.place(x)
	h.up(i)
	h.down(*h.place(x))
}

func (h *ordered[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.place(h.items[i]), *h.place(h.items[j]) = i, j
}

func (h *ordered[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *ordered[T]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			return
		}
		if child+1 < len(h.items) && h.less(h.items[child+1], h.items[child]) {
			child++
		}
		if !h.less(h.items[child], h.items[i]) {
			return
		}
		h.swap(i, child)
		i = child
	}
}
