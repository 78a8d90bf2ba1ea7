package retrypg

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestATransactionThatDatabaseSQLRollsBackIsAwaited: it does so on a goroutine of its own, where a context has ended, and the caller's next statement
// on the same connection must not run inside of what is to be rolled back.
func TestATransactionThatDatabaseSQLRollsBackIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r txRecord
		r.awaitEnd() // none of ours: nobody tells
		r.begun(&session{})
		awaited := make(chan struct{})
		go func() {
			r.awaitEnd()
			close(awaited)
		}()
		synctest.Wait()
		select {
		case <-awaited:
			require.Fail(t, "it is not over")
		default:
		}
		r.lock()
		r.end(verdictNone, nil, nil)
		r.unlock()
		<-awaited
		r.awaitEnd() // it is over
	})
}

// TestWhatIsNotOfATransactionIsOfNoOtherEither: where a transaction is run in the context of another one's BeginTx, hooks that begin one of
// their own must not be taken for the outer one.
func TestWhatIsNotOfATransactionIsOfNoOtherEither(t *testing.T) {
	outer, inner := &txRecord{}, &txRecord{}
	ctx := withRecord(withRecord(t.Context(), outer), inner)
	require.Same(t, inner, recordFrom(ctx))
	require.Nil(t, recordFrom(withoutRecord(ctx)))
	ctx, cancel := context.WithCancel(ctx) // not as it was
	defer cancel()
	require.Same(t, inner, recordFrom(ctx))
	require.Nil(t, recordFrom(withoutRecord(ctx)))
}
