package compat_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
	"github.com/retrypg/retrypg/internal/pgtest/pgt"
)

// TestGORMIsToldTheTruthOfACommitWhoseAnswerWasLost: it commits through database/sql and knows nothing of retrypg. Its
// transactions are not run again; what it is told is what is there.
func TestGORMIsToldTheTruthOfACommitWhoseAnswerWasLost(t *testing.T) {
	const times = 20
	rare := map[string]int{"never delivered": 3, "delivered late": 5}
	server := pgt.Shared(t)
	proxy := pgt.Proxy(t, server.Cluster.Addr())
	handle, err := retrypg.OpenDB(proxy.DSN("dbname=" + server.Name))
	require.NoError(t, err)
	defer func() { _ = handle.Close() }()
	handle.SetMaxOpenConns(1)
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: handle}), gormConfig())
	require.NoError(t, err)
	require.NoError(t, db.Exec("create table item (id text not null)").Error)

	insert := func(tx *gorm.DB, id string) error { return tx.Exec("insert into item (id) values (?)", id).Error }
	ways := map[string]func(db *gorm.DB, id string) error{
		"Transaction": func(db *gorm.DB, id string) error {
			return db.Transaction(func(tx *gorm.DB) error { return insert(tx, id) })
		},
		"Begin and Commit": func(db *gorm.DB, id string) error {
			tx := db.Begin()
			if err := insert(tx, id); err != nil {
				tx.Rollback()
				return err
			}
			return tx.Commit().Error
		},
	}
	cuts := map[string]struct {
		match   pgtest.Match
		action  pgtest.Action
		applied bool
	}{
		"FIN before the server got it": {pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), false},
		"RST before the server got it": {pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST), false},
		"a half of it":                 {pgtest.Sending("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), false},
		"the answer was dropped":       {pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), true},
		"a half of the answer":         {pgtest.Reply("commit"), pgtest.CutInside(pgtest.Both, pgtest.FIN), true},
		"no ReadyForQuery":             {pgtest.ReplyReady("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN), true},
		"never delivered":              {pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.FIN), false},
		"the client's side was reset":  {pgtest.Sent("commit"), pgtest.CutAfter(pgtest.Client, pgtest.RST), true},
		"delivered late":               {pgtest.Sending("commit"), pgtest.DeliverLate(pgtest.FIN), true},
	}
	before, after := 0, 0
	for way, run := range ways {
		for name, cut := range cuts {
			n := times
			if rare[name] > 0 {
				n = rare[name]
			}
			for i := range n {
				id := fmt.Sprintf("%s, %s %d", way, name, i)
				rule := proxy.OnMessage(cut.match, cut.action)
				if name == "delivered late" {
					go func() {
						if rule.Wait(t.Context()) == nil {
							rule.Release()
						}
					}()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				err := run(db.WithContext(ctx), id)
				cancel()
				rule.Release()
				var n int64
				require.NoError(t, db.Raw("select count(*) from item where id = ?", id).Scan(&n).Error)
				if cut.applied {
					after++
					require.NoError(t, err, id)
					require.EqualValues(t, 1, n, id)
				} else {
					before++
					require.Equal(t, retrypg.OutcomeRolledBack, retrypg.Classify(err).Outcome, "%s: %v", id, err)
					require.Zero(t, n, id)
				}
			}
		}
	}
	t.Logf("COMMITs cut: %d before the server had them, %d afterwards", before, after)
}
