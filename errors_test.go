package retrypg

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

func TestACommitUnknownErrorMatchesItsKindAndItsCause(t *testing.T) {
	err := fmt.Errorf("transfer: %w", &CommitUnknownError{Err: io.ErrUnexpectedEOF})
	require.ErrorIs(t, err, ErrCommitUnknown)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NotErrorIs(t, err, io.EOF)
	require.NotErrorIs(t, err, driver.ErrBadConn)
	var unknown *CommitUnknownError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, Class{Reason: Classify(err).Reason}, Classify(err), "never retried, and nothing is known")
	require.Equal(t, "transfer: commit outcome unknown: COMMIT was sent and no answer came (unexpected EOF): "+
		"the transaction may have been applied; look for its effect before running it again", err.Error())
}

func TestACommitUnknownErrorIsNeverRetriedWhateverItsCause(t *testing.T) {
	for _, cause := range []error{
		io.EOF, driver.ErrBadConn, context.DeadlineExceeded, stateError("57P01"), stateError("40001"), stateError("08006"),
	} {
		err := error(&CommitUnknownError{Err: cause})
		require.False(t, decideTransaction(err).Retry, "%v", cause)
		require.False(t, decideTransaction(fmt.Errorf("wrapped: %w", err)).Retry, "%v", cause)
		require.False(t, decideTransaction(errors.Join(errors.New("other"), err)).Retry, "%v", cause)
		require.NotEqual(t, OutcomeRolledBack, Classify(err).Outcome, "%v", cause)
		require.NotEqual(t, OutcomeNotStarted, Classify(err).Outcome, "%v", cause)
		require.Equal(t, RetryNever, Classify(err).Retry, "%v", cause)
	}
}

func TestADiscardedConnectionKeepsTheReason(t *testing.T) {
	reason := errors.New("write: broken pipe")
	err := error(&discardedError{err: reason})
	require.ErrorIs(t, err, driver.ErrBadConn, "database/sql takes another one")
	require.ErrorIs(t, err, reason)
	require.Equal(t, reason.Error(), err.Error())
}

func TestAnExhaustedErrorIsThatOfPackagePolicy(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", &policy.ExhaustedError{
		Op: "transaction", Reason: policy.StopMaxAttempts, Attempts: 3, Elapsed: 250 * time.Millisecond, Last: stateError("40001"),
	})
	var exhausted *ExhaustedError
	require.ErrorAs(t, err, &exhausted)
	require.Equal(t, 3, exhausted.Attempts)
	require.Equal(t, "40001", SQLState(err))
	require.Equal(t, RetryTransaction, Classify(err).Retry, "its class is that of the last error")
	require.False(t, decideTransaction(err).Retry, "what was tried to its end is not tried again around it")
	require.Equal(t, "wrapped: transaction: gave up after 3 attempts in 250ms (max_attempts): server error 40001", err.Error())
}

func TestTheSentinelsDiffer(t *testing.T) {
	sentinels := []error{ErrCommitUnknown, ErrTxEnded, ErrNilFunc, ErrNilDB, ErrNestedOptions, ErrClosed, errBusy}
	for i, a := range sentinels {
		for j, b := range sentinels {
			require.Equal(t, i == j, errors.Is(a, b))
		}
		require.NotErrorIs(t, a, driver.ErrBadConn)
		require.NotEmpty(t, a.Error())
		require.Equal(t, RetryNever, Classify(a).Retry)
	}
}

func TestTheCauseOfAnAbortedTransactionDecides(t *testing.T) {
	for _, tt := range []struct {
		cause error
		retry bool
	}{
		{stateError("40001"), true}, {stateError("40P01"), true}, {stateError("23505"), false}, {nil, true},
	} {
		for _, swallowed := range []bool{true, false} {
			if tt.cause == nil && !swallowed {
				continue
			}
			err := &abortedError{swallowed: swallowed, cause: tt.cause, err: stateError("25P02")}
			require.Equal(t, tt.retry, decideTransaction(err).Retry)
			require.Equal(t, tt.retry, decideTransaction(err).Free)
			if tt.cause != nil {
				require.ErrorIs(t, err, tt.cause)
				require.Equal(t, SQLState(tt.cause), SQLState(err))
			}
			require.Equal(t, swallowed, strings.Contains(err.Error(), "return the statement's error"))
		}
	}
}
