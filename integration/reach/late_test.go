package reach_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestServerThatAppearsLaterIsUsedAtOnce: the first call of the program comes before the server.
func TestServerThatAppearsLaterIsUsedAtOnce(t *testing.T) {
	each(t, ours, func(t *testing.T, k kind) {
		r := appearsLate(t, k, time.Second)
		r.untold(t)
		r.sound(t)
		r.within(t, 5*time.Second)
	})
}

// appearsLate: the client is started before the server, which is away for as long as absence.
func appearsLate(t *testing.T, k kind, absence time.Duration) *result {
	ctx := within(t)
	server := newServer(t, "late", nil)
	record := newRecord(ctx, t, server)
	require.NoError(t, server.StopFast(ctx))
	l := (&load{client: k.open(t, server.DSN(), workers), record: record, timeout: 30 * time.Second, once: true}).start(t, 1)
	time.Sleep(absence) // the caller's situation: its waits have grown
	began := time.Now()
	require.NoError(t, server.Start(ctx))
	t0 := accepting(ctx, t, server, began)
	l.allBack(ctx, t0, patience())
	return l.judge(ctx, t, t0, server)
}
