package retrypg

import "sync"

// slabs give out values that were allocated many at a time. None is used twice: who got one may keep it.
type slabs[T any] struct{ pool sync.Pool }

// slabSize is how many values are allocated at a time. Chosen: what one of them points to is not freed before all of them can be, as with the rows
// of pgxpool, which allocates 128 at a time.
const slabSize = 32

var (
	idleSlabs slabs[idleOnly]
	rowsSlabs slabs[pooledRows]
	rowSlabs  slabs[pooledRow]
)

func (s *slabs[T]) next() *T {
	slab, _ := s.pool.Get().(*[]T)
	if slab == nil {
		slab = new([]T)
	}
	if len(*slab) == 0 {
		*slab = make([]T, slabSize)
	}
	v := &(*slab)[0]
	*slab = (*slab)[1:]
	s.pool.Put(slab)
	return v
}
