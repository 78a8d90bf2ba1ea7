package outcome

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// fake is a server that answers as it is told.
type fake struct {
	mu      sync.Mutex
	opened  int
	closed  int
	asks    []time.Duration // since start
	fences  []bool          // active or not
	start   time.Time
	openErr error
	answer  func(n int, q *Question) (reply, error) // n counts from 1
	fenced  func(active bool) (fenced, unreplicated bool, err error)
	using   int // asks at the same time
	hang    int // the first of them are not answered
}

func (f *fake) open(context.Context) (server, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.openErr != nil {
		return nil, f.openErr
	}
	f.opened++
	return fakeConn{f}, nil
}

type fakeConn struct{ *fake }

func (f fakeConn) ask(ctx context.Context, q *Question) (reply, error) {
	f.mu.Lock()
	f.using++
	if f.using > 1 {
		panic("two questions on one connection")
	}
	f.asks = append(f.asks, time.Since(f.start))
	n := len(f.asks)
	f.mu.Unlock()
	time.Sleep(100 * time.Microsecond)
	if n <= f.hang {
		<-ctx.Done()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.using--
		return reply{}, ctx.Err()
	}
	r, err := f.answer(n, q)
	f.mu.Lock()
	f.using--
	f.mu.Unlock()
	return r, err
}

func (f fakeConn) fence(_ context.Context, _ *Question, active bool) (bool, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fences = append(f.fences, active)
	if f.fenced == nil {
		return false, false, nil
	}
	return f.fenced(active)
}

func (f fakeConn) close(context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
}

// resolve resolves one question with 10 s of time.
func resolve(t *testing.T, f *fake) Answer {
	t.Helper()
	f.start = time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return newResolver(f.open).Resolve(ctx, &Question{Server: began, XID: 727})
}

func always(s status) func(int, *Question) (reply, error) {
	return func(int, *Question) (reply, error) { return reply{server: began, status: s}, nil }
}

func TestManyQuestionsShareOneConnectionWhichIsClosedWithTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{start: time.Now(), answer: func(n int, _ *Question) (reply, error) {
			if n < 300 {
				return reply{server: began, status: statusInProgress}, nil
			}
			return reply{server: began, status: statusCommitted}, nil
		}}
		r := newResolver(f.open)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { require.Equal(t, Committed, r.Resolve(ctx, &Question{Server: began, XID: 727}).Verdict) })
		}
		wg.Wait()
		require.Equal(t, 1, f.opened)
		require.Equal(t, 1, f.closed)
		require.Equal(t, Committed, r.Resolve(ctx, &Question{Server: began, XID: 727}).Verdict)
		require.Equal(t, 2, f.opened, "a later one opens another")
		require.Equal(t, 2, f.closed)
	})
}

// TestAQuestionThatIsNotAnsweredIsGivenUpForAnotherConnection, so that it does not keep the others waiting.
func TestAQuestionThatIsNotAnsweredIsGivenUpForAnotherConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hang: 1, answer: always(statusCommitted)}
		require.Equal(t, Committed, resolve(t, f).Verdict)
		require.Len(t, f.asks, 2)
		require.Equal(t, askTimeout, f.asks[1].Truncate(100*time.Millisecond))
		require.Equal(t, []int{2, 2}, []int{f.opened, f.closed})
	})
}

func TestATransactionInProgressIsPolledAndFencedWhenItIsIdleForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: always(statusInProgress)}
		var at time.Duration
		f.fenced = func(bool) (bool, bool, error) {
			at = time.Since(f.start)
			f.answer = always(statusAborted)
			return true, false, nil
		}
		a := resolve(t, f)
		require.Equal(t, NotApplied, a.Verdict)
		require.True(t, a.Fenced)
		require.Equal(t, []bool{false}, f.fences)
		require.GreaterOrEqual(t, at, fenceIdleAfter)
		require.Less(t, at, fenceIdleAfter+2*maxPoll)
		require.Len(t, f.asks, a.Asked)
		require.Less(t, a.Asked, 30, "waits grow")
	})
}

func TestABusyTransactionIsFencedOnlyWhenHalfOfTheTimeIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: always(statusInProgress)}
		var at time.Duration
		f.fenced = func(active bool) (bool, bool, error) {
			if !active {
				return false, false, nil // it is busy
			}
			at = time.Since(f.start)
			f.answer = always(statusCommitted)
			return true, true, nil
		}
		a := resolve(t, f)
		require.Equal(t, Committed, a.Verdict)
		require.True(t, a.Fenced)
		require.True(t, a.Unreplicated, "it may have begun to wait for its standby when it was ended")
		require.GreaterOrEqual(t, at, 5*time.Second)
		require.Less(t, at, 5*time.Second+2*maxPoll)
	})
}

func TestNothingIsFencedAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crashed := began
		crashed.Epoch = Epoch{Started: "1", Replayed: "2", StatsReset: "3"}
		f := &fake{answer: func(int, *Question) (reply, error) { return reply{server: crashed, status: statusInProgress}, nil }}
		a := resolve(t, f)
		require.Equal(t, Unknown, a.Verdict)
		require.Contains(t, a.Reason, "in progress")
		require.False(t, a.Over)
		require.Empty(t, f.fences)
		require.Equal(t, 1, f.closed)
	})
}

func TestAFenceThatIsNotAllowedLeavesTheTransactionToItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denied := &pgconn.PgError{Severity: "ERROR", Code: "42501"}
		f := &fake{answer: always(statusInProgress), fenced: func(bool) (bool, bool, error) { return false, false, denied }}
		a := resolve(t, f)
		require.Equal(t, Unknown, a.Verdict)
		require.Equal(t, 1, f.opened, "the connection is good")
	})
}

func TestABrokenConnectionIsReplacedAndAHopelessAnswerEndsTheAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(n int, _ *Question) (reply, error) {
			if n <= 3 {
				return reply{}, errors.New("broken")
			}
			return reply{server: began, status: statusCommitted}, nil
		}}
		a := resolve(t, f)
		require.Equal(t, Committed, a.Verdict)
		require.Equal(t, []int{4, 4, 4}, []int{a.Asked, f.opened, f.closed})
	})
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(int, *Question) (reply, error) {
			return reply{}, &pgconn.PgError{Severity: "ERROR", Code: "42883", Message: "no such function"}
		}}
		a := resolve(t, f)
		require.Equal(t, Unknown, a.Verdict)
		require.Equal(t, 1, a.Asked)
		require.ErrorContains(t, a.Err, "no such function")
	})
	synctest.Test(t, func(t *testing.T) {
		f := &fake{openErr: errors.New("wrong password")}
		a := resolve(t, f)
		require.Equal(t, Answer{Reason: "the server could not be asked", Err: f.openErr}, a)
	})
}

func TestAStandbyAndAFormerPrimaryAreAskedAgainOverOtherConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		standby, former := began, began
		standby.Standby, former.Timeline = true, 2
		f := &fake{answer: func(n int, _ *Question) (reply, error) {
			switch n {
			case 1:
				return reply{server: standby}, nil
			case 2:
				return reply{server: former, status: statusAborted}, nil
			}
			return reply{server: began, status: statusCommitted}, nil
		}}
		a := resolve(t, f)
		require.Equal(t, Committed, a.Verdict)
		require.Equal(t, 3, f.opened)
		require.Equal(t, 3, f.closed)
	})
}

func TestACallerWhoseTimeEndsWhileItWaitsForItsTurnDoesNotHoldTheOthersUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &fake{start: time.Now(), answer: func(n int, _ *Question) (reply, error) {
			if n == 1 {
				<-release
			}
			return reply{server: began, status: statusCommitted}, nil
		}}
		r := newResolver(f.open)
		long, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { require.Equal(t, Committed, r.Resolve(long, &Question{Server: began, XID: 1}).Verdict) })
		synctest.Wait()
		short, cancelShort := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancelShort()
		started := time.Now()
		a := r.Resolve(short, &Question{Server: began, XID: 2})
		require.Equal(t, Unknown, a.Verdict)
		require.ErrorIs(t, a.Err, context.DeadlineExceeded)
		require.Zero(t, a.Asked)
		require.Equal(t, 50*time.Millisecond, time.Since(started))
		close(release)
		wg.Wait()
		require.Equal(t, []int{1, 1}, []int{f.opened, f.closed})
	})
}
