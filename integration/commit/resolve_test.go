package commit_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// outOfReach loses the answer to the next COMMIT and keeps the server away from then on, so that it cannot be asked.
func (s *scene) outOfReach(match pgtest.Match) {
	s.t.Helper()
	rule := s.proxy.OnMessage(func(m pgtest.Message) bool {
		if !match(m) {
			return false
		}
		_ = s.proxy.SetAccept(pgtest.AcceptRefuse) // in the moment of the cut: the first question comes at once
		return true
	}, pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	s.t.Cleanup(rule.Remove)
}

// TestCommitThatCannotBeAskedAboutIsUnknownAndIsResolvedLater: by the handle, by another one for the same cluster, and by
// a program that has kept the fields of the error.
func TestCommitThatCannotBeAskedAboutIsUnknownAndIsResolvedLater(t *testing.T) {
	for name, tc := range map[string]struct {
		match   pgtest.Match
		applied bool
	}{
		"committed":   {pgtest.Reply("commit"), true},
		"not applied": {pgtest.Sending("commit"), false},
	} {
		for _, check := range []retrypg.CommitCheck{retrypg.XID, retrypg.Ledger} {
			t.Run(name+", "+check.String(), func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				var told []retrypg.CommitCheckInfo
				db := openDB(t, s.dsn, retrypg.Hooks{
					CommitChecked: func(_ context.Context, info retrypg.CommitCheckInfo) { told = append(told, info) },
				}, retrypg.WithCommitCheck(check), retrypg.WithCommitCheckMaxElapsed(time.Second))
				tx, err := db.BeginTx(t.Context(), nil)
				require.NoError(t, err)
				_, err = tx.ExecContext(t.Context(), insertItem, "a")
				require.NoError(t, err)

				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				s.outOfReach(tc.match)
				err = tx.Commit()
				var unknown *retrypg.CommitUnknownError
				require.ErrorAs(t, err, &unknown)
				require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
				require.Len(t, told, 1)
				require.Equal(t, "unknown", told[0].Outcome)
				require.Equal(t, check, unknown.Check)
				require.NotZero(t, unknown.XID)
				require.NotZero(t, unknown.PID)
				require.NotEmpty(t, unknown.Server.SystemIdentifier)
				require.NotZero(t, unknown.Server.Timeline)
				require.NotEmpty(t, unknown.Server.Epoch)
				require.Equal(t, check == retrypg.Ledger, unknown.Token != "")
				require.ErrorContains(t, err, "the server could not be asked")

				_, err = retrypg.ResolveCommit(ctx, db, unknown)
				require.ErrorIs(t, err, retrypg.ErrCommitUnknown, "the server is still away")

				require.NoError(t, s.proxy.SetAccept(pgtest.AcceptForward))
				committed, err := retrypg.ResolveCommit(t.Context(), db, unknown)
				require.NoError(t, err)
				require.Equal(t, tc.applied, committed)

				kept := &retrypg.CommitUnknownError{
					Check: unknown.Check, XID: unknown.XID, PID: unknown.PID, Server: unknown.Server, Token: unknown.Token,
				}
				pool := openPool(t, s.dsn, retrypg.Hooks{})
				committed, err = retrypg.ResolvePgxCommit(t.Context(), pool, kept)
				require.NoError(t, err)
				require.Equal(t, tc.applied, committed)
				conn, err := pgx.Connect(t.Context(), s.dsn)
				require.NoError(t, err)
				defer func() { _ = conn.Close(context.Background()) }()
				committed, err = retrypg.ResolvePgxCommit(t.Context(), conn, kept)
				require.NoError(t, err)
				require.Equal(t, tc.applied, committed)
				require.Equal(t, tc.applied, s.items("a") == 1)
			})
		}
	}
}

func TestThereIsNothingToResolveWithoutACheckOrAHandle(t *testing.T) {
	s := newScene(t)
	db := openDB(t, s.dsn, retrypg.Hooks{})
	s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	err := retrypg.WithTx(t.Context(), db, retrypg.TxOptions{Commit: retrypg.NoCheck}, insertOne("a"))
	var unknown *retrypg.CommitUnknownError
	require.ErrorAs(t, err, &unknown)
	_, err = retrypg.ResolveCommit(t.Context(), db, unknown)
	require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
	require.ErrorContains(t, err, "nothing can be asked")
	_, err = retrypg.ResolveCommit(t.Context(), db, nil)
	require.ErrorContains(t, err, "got nil")
	_, err = retrypg.ResolveCommit(t.Context(), nil, unknown)
	require.ErrorIs(t, err, retrypg.ErrNilDB)

	other, err := sql.Open("pgx", s.dsn)
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	unknown.XID, unknown.Server.SystemIdentifier = 1000, "1"
	_, err = retrypg.ResolveCommit(t.Context(), other, unknown)
	require.ErrorContains(t, err, "not one of retrypg's")
}

func insertOne(id string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, insertItem, id)
		return err
	}
}

// TestVerifyIsAskedWhereTheServerCannotTell: here because there is nothing to ask it.
func TestVerifyIsAskedWhereTheServerCannotTell(t *testing.T) {
	look := func(id string) func(context.Context, retrypg.Querier) (bool, error) {
		return func(ctx context.Context, db retrypg.Querier) (committed bool, err error) {
			err = db.QueryRow(ctx, "select exists (select from item where id = $1)", id).Scan(&committed)
			return committed, err
		}
	}
	unchecked := func(verify func(context.Context, retrypg.Querier) (bool, error)) retrypg.TxOptions {
		return retrypg.TxOptions{Commit: retrypg.NoCheck, Verify: verify}
	}
	plain := func(t *testing.T, s *scene) *sql.DB {
		db, err := sql.Open("pgx", s.dsn)
		require.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	for name, open := range map[string]func(t *testing.T, s *scene) *sql.DB{
		"retrypg": func(t *testing.T, s *scene) *sql.DB { return openDB(t, s.dsn, retrypg.Hooks{}) },
		"pgx":     plain,
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			db := open(t, s)
			run := func(id string, match pgtest.Match, verify func(context.Context, retrypg.Querier) (bool, error)) error {
				s.proxy.OnMessage(match, pgtest.CutBefore(pgtest.Both, pgtest.FIN))
				return retrypg.WithTx(t.Context(), db, unchecked(verify), insertOne(id))
			}
			require.NoError(t, run("committed", pgtest.Reply("commit"), look("committed")))
			require.Equal(t, 1, s.items("committed"))
			require.NoError(t, run("run again", pgtest.Sending("commit"), look("run again")))
			require.Equal(t, 1, s.items("run again"))

			errLook := errors.New("no such view")
			err := run("failed", pgtest.Reply("commit"), func(context.Context, retrypg.Querier) (bool, error) { return true, errLook })
			require.ErrorIs(t, err, retrypg.ErrCommitUnknown)
			require.ErrorContains(t, err, "TxOptions.Verify: no such view")
			require.Panics(t, func() {
				_ = run("panic", pgtest.Reply("commit"), func(context.Context, retrypg.Querier) (bool, error) { panic("verify") })
			})
			require.NoError(t, db.PingContext(t.Context()), "the handle is not harmed")
		})
	}
	t.Run("not where the server can tell", func(t *testing.T) {
		s := newScene(t)
		pool := openPool(t, s.dsn, retrypg.Hooks{})
		s.proxy.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
		require.NoError(t, retrypg.WithPgxTx(t.Context(), pool, retrypg.TxOptions{
			Verify: func(context.Context, retrypg.Querier) (bool, error) { panic("asked") },
		}, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insertItem, "a")
			return err
		}))
	})
}
