package endpoint

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// wire is a connection that does as the test says.
type wire struct {
	read     atomic.Uint64
	awaiting atomic.Bool
	severed  atomic.Pointer[error]
}

func (w *wire) BytesRead() uint64 { return w.read.Load() }
func (w *wire) Awaiting() bool    { return w.awaiting.Load() }
func (w *wire) Sever(err error)   { w.severed.CompareAndSwap(nil, &err) }

// scene is a watch whose servers do as the test says.
type scene struct {
	*Watch
	mu     sync.Mutex
	alive  bool          // the answer to a question for a sign of life
	takes  time.Duration // how long it takes
	found  string        // what is found; empty: nothing
	asked  int           // for signs of life
	sought int           // for another server
	silent []string
}

var errCut = errors.New("cut")

func newScene(ctx context.Context, failOver bool) *scene {
	s := &scene{}
	s.Watch = NewWatch(ctx, WatchOptions{
		Stagger: 250 * time.Millisecond, FailOver: failOver,
		Alive: func(ctx context.Context, _, _ string) bool {
			s.mu.Lock()
			s.asked++
			alive, takes := s.alive, s.takes
			s.mu.Unlock()
			select {
			case <-time.After(takes):
				return alive
			case <-ctx.Done():
				return false
			}
		},
		Find: func(context.Context, string) (string, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sought++
			if s.found == "" {
				return "", errors.New("none")
			}
			return s.found, nil
		},
		Silent: func(addr, found string, _ bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.silent = append(s.silent, addr+" "+found)
		},
		Cut: func(string, string) error { return errCut },
	})
	return s
}

func (s *scene) set(alive bool, found string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive, s.found = alive, found
}

func (s *scene) counts() (asked, sought int, silent []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked, s.sought, s.silent
}

// open makes an established line to addr.
func (s *scene) open(addr string) (*Line, *wire) {
	l, w := s.Dial("tcp", addr, func(error) {}), &wire{}
	w.read.Store(1)
	l.Dialled(w)
	s.Established(w)
	return l, w
}

// inScene runs f with a watch in virtual time, and requires that nothing is left once its lines have ended.
func inScene(t *testing.T, failOver bool, f func(t *testing.T, s *scene)) {
	synctest.Test(t, func(t *testing.T) { f(t, newScene(t.Context(), failOver)) })
}

func TestStatementsOnASilentServerAreEndedWhenAnotherIsThePrimary(t *testing.T) {
	inScene(t, true, func(t *testing.T, s *scene) {
		s.set(false, "b")
		l, w := s.open("a")
		idle, wIdle := s.open("a")
		other, wOther := s.open("c")
		w.awaiting.Store(true)
		began := time.Now()
		for w.severed.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(began), overdue+2*watchTick)
		require.ErrorIs(t, *w.severed.Load(), errCut)
		synctest.Wait()
		require.NotNil(t, wIdle.severed.Load(), "an idle connection to it is of no use either")
		require.Nil(t, wOther.severed.Load())
		_, _, silent := s.counts()
		require.Equal(t, []string{"a b"}, silent)
		l.End()
		idle.End()
		other.End()
	})
}

func TestAServerThatTakesLongForASignOfLifeIsNotLeft(t *testing.T) {
	inScene(t, true, func(t *testing.T, s *scene) {
		s.set(true, "b")
		s.takes = overdue - time.Millisecond
		l, w := s.open("a")
		w.awaiting.Store(true)
		time.Sleep(time.Minute)
		require.Nil(t, w.severed.Load())
		_, sought, _ := s.counts()
		require.Positive(t, sought, "it is slow enough for a look at the others")
		l.End()
	})
}

func TestAServerThatDoesNotEvenSayThatItLivesIsLeftWithinASecondAndAHalf(t *testing.T) {
	inScene(t, true, func(t *testing.T, s *scene) {
		s.set(true, "b")
		s.takes = time.Hour
		l, w := s.open("a")
		w.awaiting.Store(true)
		began := time.Now()
		for w.severed.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(began), 1500*time.Millisecond)
		l.End()
	})
}

func TestALongStatementOnAServerThatLivesGoesOn(t *testing.T) {
	inScene(t, true, func(t *testing.T, s *scene) {
		s.set(true, "b")
		l, w := s.open("a")
		w.awaiting.Store(true)
		time.Sleep(time.Minute)
		asked, sought, _ := s.counts()
		require.Nil(t, w.severed.Load())
		require.Zero(t, sought)
		require.InDelta(t, 18, asked, 4, "seldom: half of the time that the statement takes, and five seconds at most")
		l.End()
	})
}

func TestASignOfLifeOnAnyConnectionIsEnough(t *testing.T) {
	inScene(t, true, func(t *testing.T, s *scene) {
		s.set(false, "b")
		l, w := s.open("a")
		busy, wBusy := s.open("a")
		w.awaiting.Store(true)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			wBusy.read.Add(1)
		}
		asked, _, _ := s.counts()
		require.Zero(t, asked)
		l.End()
		busy.End()
	})
}

func TestASilentServerIsNotLeftWhileThereIsNoOther(t *testing.T) {
	inScene(t, true, func(t *testing.T, s *scene) {
		l, w := s.open("a")
		w.awaiting.Store(true)
		time.Sleep(10 * time.Second)
		_, sought, _ := s.counts()
		require.Nil(t, w.severed.Load())
		require.Positive(t, sought)
		s.set(false, "a")
		time.Sleep(10 * time.Second)
		require.Nil(t, w.severed.Load(), "it is what is looked for itself")
		s.set(false, "b")
		time.Sleep(10 * time.Second)
		require.NotNil(t, w.severed.Load())
		l.End()
	})
}

func TestIdleConnectionsAreLeftInPeace(t *testing.T) {
	for _, failOver := range []bool{true, false} {
		inScene(t, failOver, func(t *testing.T, s *scene) {
			l, w := s.open("a")
			w.awaiting.Store(!failOver) // without a role there is no proof that the server has lost it
			time.Sleep(time.Hour)
			asked, sought, _ := s.counts()
			require.Zero(t, asked+sought)
			l.End()
		})
	}
}

func TestConnectingToASilentServerIsEndedWhenAnotherAnswers(t *testing.T) {
	for _, failOver := range []bool{true, false} {
		inScene(t, failOver, func(t *testing.T, s *scene) {
			s.set(true, "b") // the kernel of a stopped server accepts connections
			ctx, abort := context.WithCancelCause(t.Context())
			dialling := s.Dial("tcp", "a", abort)
			handshake, w := s.Dial("tcp", "a", func(error) {}), &wire{}
			handshake.Dialled(w)
			established, wEstablished := s.open("a")
			began := time.Now()
			<-ctx.Done()
			require.LessOrEqual(t, time.Since(began), 250*time.Millisecond+watchTick)
			require.ErrorIs(t, context.Cause(ctx), errCut)
			synctest.Wait()
			require.NotNil(t, w.severed.Load())
			require.Nil(t, wEstablished.severed.Load(), "to connect may fail for other reasons")
			dialling.End()
			handshake.End()
			established.End()
		})
	}
}

func TestTheSearchForAnotherServerIsNotMadeByEachConnection(t *testing.T) {
	inScene(t, true, func(t *testing.T, s *scene) {
		var lines []*Line
		for range 100 {
			lines = append(lines, s.Dial("tcp", "a", func(error) {}))
		}
		time.Sleep(5 * time.Second)
		_, sought, _ := s.counts()
		require.LessOrEqual(t, sought, 20)
		for _, l := range lines {
			l.End()
			l.End()
		}
	})
}

func TestAWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newScene(ctx, true)
		l, w := s.open("a")
		cancel()
		synctest.Wait()
		w.awaiting.Store(true)
		time.Sleep(time.Hour)
		asked, sought, _ := s.counts()
		require.Zero(t, asked+sought)
		s.Dial("tcp", "a", func(error) {}).End()
		l.End()
	})
}

func TestConnectionsInUseAreLeftAloneWhenOnlyConnectingWasSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow *wire
		s := newScene(t.Context(), true)
		s.opts.Find = func(context.Context, string) (string, error) {
			slow.read.Store(1)
			s.Established(slow) // it becomes ready while another one is looked for
			return "b", nil
		}
		busy, w := s.open("a")
		w.awaiting.Store(true)
		time.Sleep(time.Millisecond)
		handshake := s.Dial("tcp", "a", func(error) {})
		slow = &wire{}
		handshake.Dialled(slow)
		s.set(true, "b")
		time.Sleep(overdue)
		require.Nil(t, w.severed.Load())
		require.Nil(t, slow.severed.Load())
		busy.End()
		handshake.End()
	})
}

func TestAServerThatWasAwayForAMomentOnlyIsNotLeft(t *testing.T) {
	inScene(t, true, func(t *testing.T, s *scene) {
		var answers atomic.Int32
		s.opts.Alive = func(context.Context, string, string) bool { return answers.Add(1) > 1 }
		s.set(false, "b") // the same server by another address
		l, w := s.open("a")
		w.awaiting.Store(true)
		time.Sleep(10 * time.Second)
		require.Nil(t, w.severed.Load())
		require.Greater(t, answers.Load(), int32(1))
		l.End()
	})
}
