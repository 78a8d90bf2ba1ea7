//go:build docker

package docker

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go/modules/postgres"

	"github.com/retrypg/retrypg/integration/audit"
)

// workers is the number of concurrent callers in a workload.
const workers = 4

func TestRestartOfTheContainerUnderLoadLosesAndDoublesNothing(t *testing.T) {
	for name, end := range map[string]func(*server, *testing.T){
		"stopped": (*server).stop,
		"killed":  (*server).kill,
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.run(t, postgres.BasicWaitStrategies())
			db, err := sql.Open("retrypg", s.dsn())
			require.NoError(t, err)
			defer db.Close()
			db.SetMaxOpenConns(workers)
			load := startWorkload(t, db, workers, startupTime)

			load.await(t, 100, audit.OK)
			end(s, t)
			s.start(t)
			load.await(t, 100, audit.OK)

			load.finish()
			require.NoError(t, db.Close())
			report := load.verify(t, s.dsn())
			require.Empty(t, report.Of(audit.NotApplied), "a restart within the callers' deadline is ridden out")
			require.LessOrEqual(t, len(report.Of(audit.Unknown)), workers, "each caller has at most one COMMIT under way")
		})
	}
}
