package retrypg

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/internal/pgtest/script"
)

// told is a row of text columns.
func told(values ...string) script.Result {
	r := script.Result{Rows: [][]string{values}}
	for range values {
		r.Columns = append(r.Columns, script.Column{Name: "c", OID: 25})
	}
	return r
}

// losing is a script of a server that says who it is, takes the answer to the first COMMIT away, and says of the transaction
// what status says.
func losing(status func() string, other func(s *script.Session, sql string) script.Result) func(*script.Session, string) script.Result {
	lost := false
	return knowing(0, func(s *script.Session, sql string) script.Result {
		switch {
		case sql == "commit" && !lost:
			lost = true
			return script.Result{Close: true}
		case strings.Contains(sql, "pg_xact_status"):
			return told(status())
		case other != nil:
			return other(s, sql)
		}
		return script.Result{}
	})
}

func says(status string) func() string { return func() string { return status } }

// TestVerifyIsNotAskedWhileTheTransactionMayStillCommit: its answer could be overtaken.
func TestVerifyIsNotAskedWhileTheTransactionMayStillCommit(t *testing.T) {
	for status, asked := range map[string]int{"in progress": 0, "": 1} { // the latter: so long ago that nobody knows
		synctest.Test(t, func(t *testing.T) {
			var outcomes []string
			unknowns := 0
			db, _ := scriptedFor(t, losing(says(status), nil), WithCommitCheck(XID), WithHooks(Hooks{
				CommitChecked: func(_ context.Context, i CommitCheckInfo) { outcomes = append(outcomes, i.Outcome) },
				CommitUnknown: func(context.Context, *CommitUnknownError) { unknowns++ },
			}))
			verified := 0
			err := WithTx(within(t, 10*time.Second), db, TxOptions{Verify: func(context.Context, Querier) (bool, error) {
				verified++
				return true, nil
			}}, update)
			require.Equal(t, asked, verified, status)
			if asked == 1 {
				require.NoError(t, err)
				require.Equal(t, []string{"committed"}, outcomes)
				require.Zero(t, unknowns)
				return
			}
			require.ErrorIs(t, err, ErrCommitUnknown)
			require.ErrorContains(t, err, "still in progress")
			require.Equal(t, []string{"unknown"}, outcomes)
			require.Equal(t, 1, unknowns)
		})
	}
}

// TestAnErrorOfVerifyLeavesTheOutcomeUnknown, and is told.
func TestAnErrorOfVerifyLeavesTheOutcomeUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var outcomes []string
		db, _ := scriptedFor(t, losing(says(""), nil), WithCommitCheck(XID), WithHooks(Hooks{
			CommitChecked: func(_ context.Context, i CommitCheckInfo) { outcomes = append(outcomes, i.Outcome) },
		}))
		err := WithTx(within(t, 10*time.Second), db, TxOptions{Verify: func(context.Context, Querier) (bool, error) {
			return true, errors.New("no such table")
		}}, update)
		require.ErrorIs(t, err, ErrCommitUnknown)
		require.ErrorContains(t, err, "TxOptions.Verify: no such table")
		require.Equal(t, []string{"unknown"}, outcomes)
	})
}

// TestACloseEndsACheckSoonButNotAtOnce: who shuts down wants to know, and does not want to wait.
func TestACloseEndsACheckSoonButNotAtOnce(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{time.Second: minCommitCheck, 5 * time.Second: 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			db, _ := scriptedFor(t, losing(says("in progress"), nil), WithCommitCheck(XID), WithCommitCheckMaxElapsed(20*time.Second))
			start := time.Now()
			time.AfterFunc(after, func() { _ = db.Close() })
			require.ErrorIs(t, WithTx(t.Context(), db, TxOptions{}, update), ErrCommitUnknown)
			require.InDelta(t, want.Seconds(), time.Since(start).Seconds(), 0.3)
		})
	}
}

// TestATransactionThatWasEndedWhileItMayHaveWaitedForAStandbyIsMarked, if it has committed.
func TestATransactionThatWasEndedWhileItMayHaveWaitedForAStandbyIsMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := "in progress"
		marked := 0
		db, _ := scriptedFor(t, losing(func() string { return status }, func(_ *script.Session, sql string) script.Result {
			if strings.Contains(sql, "pg_terminate_backend") && !strings.Contains(sql, "state <> 'active'") {
				status = "committed"
				return told("t", "t")
			}
			return script.Result{}
		}), WithCommitCheck(XID), WithHooks(Hooks{CommitUnreplicated: func(_ context.Context, n *pgconn.Notice) {
			require.Nil(t, n)
			marked++
		}}))
		require.NoError(t, WithTx(within(t, 10*time.Second), db, TxOptions{}, update))
		require.Equal(t, 1, marked)
	})
}

// standby is a script of a server that is a hot standby until promoted, of which it tells with its next answer.
func standby(promoted *bool, other func(s *script.Session, sql string) script.Result) func(*script.Session, string) script.Result {
	run := knowing(0, nil)
	return func(s *script.Session, sql string) script.Result {
		if r := other(s, sql); r.Close || r.Columns != nil {
			return r
		}
		s.Announce("in_hot_standby", map[bool]string{false: "on", true: "off"}[*promoted])
		if strings.Contains(sql, "pg_control_system") && !*promoted {
			return told("1", "t", "", "100", "", "50", "7001", "on")
		}
		return run(s, sql)
	}
}

func TestAHotStandbyThatHasBecomeThePrimaryIsAskedAgainWhoItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		promoted, lost := false, false
		db, s := scriptedFor(t, standby(&promoted, func(_ *script.Session, sql string) script.Result {
			switch {
			case sql == "commit" && lost:
				lost = false
				return script.Result{Close: true}
			case strings.Contains(sql, "pg_xact_status"):
				return told("committed")
			}
			return script.Result{}
		}), WithCommitCheck(XID))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Equal(t, []string{"begin", "update t set v = v", "commit"}, texts(s), "nothing to ask")
		promoted = true
		_, err := db.ExecContext(t.Context(), "update t set v = v") // the server tells of it
		require.NoError(t, err)
		lost = true
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update))
		require.Equal(t, 2, ran(s, "begin"), "it was not run again")
	})
}

// TestATransactionThatWasBegunOnAStandbyMayHaveWrittenAfterItsPromotion.
func TestATransactionThatWasBegunOnAStandbyMayHaveWrittenAfterItsPromotion(t *testing.T) {
	for _, promote := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			promoted, lost := false, false
			db, s := scriptedFor(t, standby(&promoted, func(_ *script.Session, sql string) script.Result {
				if sql == "commit" && !lost {
					lost = true
					return script.Result{Close: true}
				}
				return script.Result{}
			}), WithCommitCheck(XID))
			err := WithTx(within(t, 10*time.Second), db, TxOptions{}, func(ctx context.Context, tx *sql.Tx) error {
				promoted = promoted || promote
				return update(ctx, tx)
			})
			if !promote {
				require.NoError(t, err)
				require.Equal(t, 2, ran(s, "commit"), "nothing can have been written: it was run again")
				return
			}
			require.ErrorIs(t, err, ErrCommitUnknown)
			require.ErrorContains(t, err, muteStandby)
			require.Equal(t, 1, ran(s, "commit"))
		})
	}
}

// TestACleanUpOfTheLedgerThatIsNotAnsweredDelaysOneCallerForAMoment, whose transaction has committed.
func TestACleanUpOfTheLedgerThatIsNotAnsweredDelaysOneCallerForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := scriptedFor(t, func(_ *script.Session, sql string) script.Result {
			switch {
			case strings.Contains(sql, "pg_control_system"):
				return script.Result{Err: serverError("42883", "unknown function")}
			case strings.HasPrefix(sql, "insert into"):
				return told("1", "app")
			case strings.HasPrefix(sql, "delete from"):
				return script.Result{Hang: true}
			}
			return script.Result{}
		}, WithCommitCheck(Ledger))
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		for range cleanUpEvery {
			require.NoError(t, WithTx(ctx, db, TxOptions{}, func(context.Context, *sql.Tx) error { return nil }))
		}
		cancel()
		require.Equal(t, 1, ran(s, "delete from"))
		require.Equal(t, 2*cleanUpTimeout, time.Since(start))
		require.NoError(t, WithTx(t.Context(), db, TxOptions{}, update), "over another connection")
	})
}

// TestWhyNothingCanBeAskedIsSaid.
func TestWhyNothingCanBeAskedIsSaid(t *testing.T) {
	for _, tc := range []struct {
		reason string
		opts   TxOptions
		text   string
	}{
		{muteOff, TxOptions{Commit: NoCheck}, "update t set v = v"},
		{muteReadOnly, TxOptions{ReadOnly: true}, "set transaction read write"},
		{muteSwitch, TxOptions{}, "select 1; insert into log values ('commit\\'); begin')"},
	} {
		synctest.Test(t, func(t *testing.T) {
			db, _ := scriptedFor(t, losing(says("committed"), nil), WithCommitCheck(XID))
			tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: tc.opts.ReadOnly})
			if tc.opts.Commit == NoCheck {
				require.NoError(t, tx.Rollback())
				err = WithTx(t.Context(), db, tc.opts, update)
			} else {
				require.NoError(t, err)
				_, err = tx.ExecContext(t.Context(), tc.text)
				require.NoError(t, err)
				err = tx.Commit()
			}
			var unknown *CommitUnknownError
			require.ErrorAs(t, err, &unknown)
			require.Equal(t, tc.reason, unknown.Reason)
		})
	}
}
