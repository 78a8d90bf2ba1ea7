//go:build docker

package docker

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go/modules/postgres"

	"github.com/retrypg/retrypg/integration/audit"
)

func TestFrozenContainerFailsCallersAtTheirDeadlineAndServesThemWhenItThaws(t *testing.T) {
	s := newServer(t)
	s.run(t, postgres.BasicWaitStrategies())
	db, err := sql.Open("retrypg", s.dsn())
	require.NoError(t, err)
	defer db.Close()
	db.SetMaxOpenConns(workers)
	load := startWorkload(t, db, workers, time.Second)

	load.await(t, 100, audit.OK)
	s.pause(t)
	// A frozen server still accepts connections and says nothing: only the
	// callers' deadlines end their waits. Two rounds, so that callers that find
	// no connection in the pool are among them.
	load.await(t, 2*workers, audit.NotApplied, audit.Unknown)
	s.unpause(t)
	load.await(t, 100, audit.OK)

	load.finish()
	require.NoError(t, db.Close())
	load.verify(t, s.dsn())
}
