package policy_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/policy"
)

// codeError is an error with data, as a driver has it.
type codeError struct{ code string }

func (e *codeError) Error() string { return "code " + e.code }

func TestExhaustedErrorReadsWell(t *testing.T) {
	refused := errors.New("connection refused")
	for want, e := range map[string]*policy.ExhaustedError{
		"connect: gave up after 5 attempts in 3.2s (max_attempts): connection refused": {
			Op: "connect", Reason: policy.StopMaxAttempts, Attempts: 5, Elapsed: 3234 * time.Millisecond, Last: refused,
		},
		"gave up after 1 attempt (budget_exhausted): connection refused; retry budget exhausted": {
			Reason: policy.StopBudget, Attempts: 1, Last: refused, Cause: policy.ErrBudgetExhausted,
		},
		"ready: not attempted (canceled): context canceled": {
			Op: "ready", Reason: policy.StopCanceled, Cause: context.Canceled,
		},
		"transaction: gave up after 2 attempts in 12.3ms (deadline): query: context deadline exceeded; the attempt before: connection refused; context deadline exceeded": {
			Op: "transaction", Reason: policy.StopDeadline, Attempts: 2, Elapsed: 12345 * time.Microsecond,
			Last:    fmt.Errorf("query: %w", context.DeadlineExceeded),
			History: []error{refused, fmt.Errorf("query: %w", context.DeadlineExceeded)},
			Cause:   context.DeadlineExceeded,
		},
		"op: gave up after 3 attempts in 170ns (policy): connection refused": {
			Op: "op", Reason: policy.StopPolicy, Attempts: 3, Elapsed: 170, Last: refused,
		},
		"not attempted ()": {},
	} {
		require.EqualError(t, e, want)
	}
}

func TestExhaustedErrorMatchesTheLastErrorThenTheCauseAndNothingElse(t *testing.T) {
	older, last, cause := &codeError{"older"}, &codeError{"last"}, &codeError{"cause"}
	e := &policy.ExhaustedError{Last: last, Cause: cause, History: []error{older, last}}
	require.Equal(t, []error{last, cause}, e.Unwrap())
	require.NotErrorIs(t, e, older)
	var found *codeError
	require.ErrorAs(t, e, &found)
	require.Same(t, last, found)

	require.ErrorAs(t, &policy.ExhaustedError{Cause: cause}, &found)
	require.Same(t, cause, found)
	require.Empty(t, (&policy.ExhaustedError{}).Unwrap())
}

func TestPermanentOfNilIsNil(t *testing.T) {
	require.NoError(t, policy.Permanent(nil))
}

func TestPermanentShowsOnlyTheErrorItMarks(t *testing.T) {
	err := &codeError{"23505"}
	marked := fmt.Errorf("insert: %w", policy.Permanent(err))
	require.EqualError(t, marked, "insert: code 23505")
	var found *codeError
	require.ErrorAs(t, marked, &found)
	require.ErrorIs(t, marked, err)
}
