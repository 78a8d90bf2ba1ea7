package policy

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [BudgetOptions].
const (
	// DefaultBudgetRatio lets one operation in ten be retried in the long run: the retry budget of "Addressing Cascading
	// Failures" (Site Reliability Engineering, 2016).
	DefaultBudgetRatio = 0.1
	// DefaultBudgetMinPerSecond keeps a program that does little from giving up at its first failure. Chosen: three a
	// second are no load for a server.
	DefaultBudgetMinPerSecond = 3.0
	// DefaultBudgetBurst is what the token bucket of the AWS SDKs holds: 500 tokens at 5 each.
	DefaultBudgetBurst = 100
)

// Bounds of [BudgetOptions].
const (
	// MaxBudgetBurst is the largest Burst.
	MaxBudgetBurst = 1_000_000
	// MaxBudgetPerSecond is the largest MinPerSecond.
	MaxBudgetPerSecond = 1_000_000
	// MinBudgetRatio is the smallest Ratio, and the unit in which a Ratio is rounded down.
	MinBudgetRatio = 1.0 / tokenUnits
)

// tokenUnits is the number of units in one token: a Budget counts in integers.
const tokenUnits = 1_000_000

// BudgetOptions say how many retries a [Budget] allows.
type BudgetOptions struct {
	// Ratio is the number of retries earned by each success, from MinBudgetRatio to 1. Zero means DefaultBudgetRatio.
	Ratio float64
	// MinPerSecond is the number of retries earned by each second, whatever happens, from 0 to MaxBudgetPerSecond. Zero
	// means DefaultBudgetMinPerSecond, or none with NoMinimum.
	MinPerSecond float64
	// NoMinimum lets only successes earn retries. MinPerSecond must then be 0.
	NoMinimum bool
	// Burst is the number of retries that can be saved up, which is also what a new Budget starts with, from 1 to
	// MaxBudgetBurst. Zero means DefaultBudgetBurst.
	Burst int
}

// Budget bounds the retries of all loops that share it, so that retries cannot turn an outage into a storm: in any
// stretch of time,
//
//	retries <= Burst + Ratio * successes + MinPerSecond * seconds
//
// It is a token bucket that starts full. A retry is charged when it is decided, before its wait, and nothing is ever given
// back, so neither a panic nor a forgotten call can leak anything. All methods are safe for concurrent use, and work on a
// nil *Budget, which allows everything.
type Budget struct {
	// deposits are what successes have earned since units was last brought up to date, as it is before each withdrawal.
	// Nothing is taken between two of these, so it makes no difference that what is above full is dropped late. They come
	// first, where cache lines begin.
	deposits [depositors]deposits
	// deposited has a bit for each place of deposits with something in it.
	deposited atomic.Uint32

	full   int64   // units of a full bucket
	credit int64   // units of one success
	rate   float64 // units per nanosecond
	// missing is full less units. It is written under mu, and read by each Deposit.
	missing atomic.Int64

	mu    sync.Mutex
	units int64         // tokens left, in tokenUnits, without what is still in deposits
	last  time.Duration // monotonic time up to which time has been credited
}

// NewBudget returns a full budget, or an error that names the option that is out of bounds.
func NewBudget(o BudgetOptions) (*Budget, error) {
	if o.Ratio == 0 {
		o.Ratio = DefaultBudgetRatio
	}
	if !(o.Ratio >= MinBudgetRatio && o.Ratio <= 1) { // refuses NaN too
		return nil, fmt.Errorf("policy: budget: the ratio %v must be from %v to 1", o.Ratio, float64(MinBudgetRatio))
	}
	if o.NoMinimum && o.MinPerSecond != 0 {
		return nil, fmt.Errorf("policy: budget: a minimum of %v per second contradicts NoMinimum: leave one out", o.MinPerSecond)
	}
	if o.MinPerSecond == 0 && !o.NoMinimum {
		o.MinPerSecond = DefaultBudgetMinPerSecond
	}
	if !(o.MinPerSecond >= 0 && o.MinPerSecond <= MaxBudgetPerSecond) {
		return nil, fmt.Errorf("policy: budget: the minimum of %v per second must be from 0 to %d", o.MinPerSecond, MaxBudgetPerSecond)
	}
	if o.Burst == 0 {
		o.Burst = DefaultBudgetBurst
	}
	if o.Burst < 1 || o.Burst > MaxBudgetBurst {
		return nil, fmt.Errorf("policy: budget: the burst %d must be from 1 to %d", o.Burst, MaxBudgetBurst)
	}
	b := &Budget{
		full:   int64(o.Burst) * tokenUnits,
		credit: int64(o.Ratio * tokenUnits),
		rate:   o.MinPerSecond * tokenUnits / float64(time.Second),
		last:   now(),
	}
	b.units = b.full
	return b, nil
}

// Deposit credits one success. While the budget is full, as it is when nothing is wrong, it reads one word and writes
// nothing, so it costs the same on any number of cores. It does not block, read the clock or allocate.
func (b *Budget) Deposit() {
	if b == nil || b.missing.Load() == 0 {
		return
	}
	b.deposit()
}

// Withdraw takes one retry, or reports that none is left.
func (b *Budget) Withdraw() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	earned, until := b.earnedLocked()
	b.last = until
	b.units = min(b.units+b.collectLocked()+earned, b.full)
	enough := b.units >= tokenUnits
	if enough {
		b.units -= tokenUnits
	}
	b.missing.Store(b.full - b.units)
	return enough
}

// Tokens returns the number of retries left now, a fraction included; +Inf for a nil Budget.
func (b *Budget) Tokens() float64 {
	if b == nil {
		return math.Inf(1)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	earned, _ := b.earnedLocked()
	return float64(min(b.units+b.inDeposits()+earned, b.full)) / tokenUnits
}

// Cap returns the number of retries of a full budget; +Inf for a nil Budget.
func (b *Budget) Cap() float64 {
	if b == nil {
		return math.Inf(1)
	}
	return float64(b.full) / tokenUnits
}

// earnedLocked returns the units that time has earned since b.last, and the time up to which they pay. The clock is read
// under the lock, so that time does not go backwards from one call to the next.
func (b *Budget) earnedLocked() (units int64, until time.Duration) {
	t := now()
	since := t - b.last
	if since <= 0 || b.rate == 0 {
		return 0, t
	}
	earned := float64(since) * b.rate
	if earned >= float64(b.full) {
		return b.full, t
	}
	units = int64(earned)
	// The time of the fraction that was cut off is kept for the next call, rounded against the caller.
	return units, b.last + min(time.Duration(math.Ceil(float64(units)/b.rate)), since)
}

// ErrBudgetExhausted is matched by the error of a loop that ended because its [Budget] allowed no further retry.
var ErrBudgetExhausted = errors.New("retry budget exhausted")

// budgetError is the Cause of StopBudget.
type budgetError struct {
	left, full float64
}

func (e *budgetError) Error() string {
	return fmt.Sprintf("%v (%.0f of %.0f left)", ErrBudgetExhausted, math.Floor(e.left), e.full)
}

func (e *budgetError) Is(target error) bool { return target == ErrBudgetExhausted }
