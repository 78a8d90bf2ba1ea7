package policy

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// depositors is the number of places for deposits, a power of two. Chosen: goroutines on a few dozen cores seldom meet, and
// a Budget still takes only a kilobyte.
const depositors = 16

// deposits are the units that some of the goroutines have put in. Each has a cache line of its own, so that cores do not
// wait for each other.
type deposits struct {
	units atomic.Int64
	_     [cacheLine - unsafe.Sizeof(atomic.Int64{})]byte
}

// cacheLine is the size of a cache line of most processors.
const cacheLine = 64

// deposit puts in the credit of one success.
func (b *Budget) deposit() {
	place := depositor()
	sum := b.deposits[place].units.Add(b.credit)
	// After the Add: who clears the bit later collects what was added, and who cleared it before is followed by this.
	if bit := uint32(1) << place; b.deposited.Load()&bit == 0 {
		b.deposited.Or(bit)
	}
	if sum >= b.missing.Load() {
		b.fill()
	}
}

// fill brings units up to date where the deposits may have made the bucket full, so that the next ones write nothing. If
// somebody else is at it, or withdraws, it leaves it to them or to the next deposit.
func (b *Budget) fill() {
	if !b.mu.TryLock() {
		return
	}
	b.units = min(b.units+b.collectLocked(), b.full)
	b.missing.Store(b.full - b.units)
	b.mu.Unlock()
}

// collectLocked takes all deposits out.
func (b *Budget) collectLocked() (units int64) {
	if b.deposited.Load() == 0 {
		return 0
	}
	for places := b.deposited.Swap(0); places != 0; places &= places - 1 {
		units += b.deposits[bits.TrailingZeros32(places)].units.Swap(0)
	}
	return units
}

// inDeposits returns what the deposits hold together.
func (b *Budget) inDeposits() (units int64) {
	for i := range b.deposits {
		units += b.deposits[i].units.Load()
	}
	return units
}

// depositor returns the place of the goroutine that calls it: one that others are unlikely to have. It depends on where
// its stack is. Nothing is read or written through the address, and the place may change at any time.
func depositor() uintptr {
	var here byte
	//nolint:gosec // only the number is used
	address := uintptr(unsafe.Pointer(&here))
	return address / smallestStack * spread >> (8*unsafe.Sizeof(address) - bitsOfDepositors)
}

const (
	// smallestStack is the size of a goroutine's first stack: two goroutines are at least so far apart.
	smallestStack = 2048
	// bitsOfDepositors is the logarithm of depositors.
	bitsOfDepositors = 4
	// spread is 2^64 divided by the golden ratio, as far as an uintptr holds it: neighbours get places far from each other.
	spread = 0x9e3779b97f4a7c15>>(64-8*unsafe.Sizeof(uintptr(0))) | 1
)
