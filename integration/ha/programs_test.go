//go:build ha && linux

package ha_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// programs are the paths of what a cluster is made of.
type programs struct {
	patroni, patronictl, etcd, haproxy, pgbouncer string
	postgres                                      string // the directory of the server's programs
}

// findPrograms returns an error that names all that is missing.
func findPrograms(ctx context.Context) (programs, error) {
	var p programs
	var missing []string
	for _, want := range []struct {
		path       *string
		name, pack string
	}{
		{&p.patroni, "patroni", "patroni"},
		{&p.patronictl, "patronictl", "patroni"},
		{&p.etcd, "etcd", "etcd-server"},
		{&p.haproxy, "haproxy", "haproxy"},
		{&p.pgbouncer, "pgbouncer", "pgbouncer"},
	} {
		path, err := exec.LookPath(want.name)
		if err != nil {
			path = filepath.Join("/usr/sbin", want.name) // which is not in everybody's PATH
			_, err = os.Stat(path)
		}
		if err != nil {
			missing = append(missing, fmt.Sprintf("%s (package %s)", want.name, want.pack))
		}
		*want.path = path
	}
	inst, err := pgtest.Find(ctx)
	if err != nil {
		return p, err
	}
	p.postgres = inst.BinDir
	// Servers that were fetched lack some of these.
	for _, name := range []string{"initdb", "pg_ctl", "pg_controldata", "pg_isready", "pg_basebackup", "pg_rewind"} {
		if _, err := os.Stat(filepath.Join(p.postgres, name)); err != nil {
			missing = append(missing, fmt.Sprintf("%s in %s (package postgresql)", name, p.postgres))
		}
	}
	if len(missing) > 0 {
		return p, fmt.Errorf("not installed: %s; on Debian or Ubuntu: apt-get install postgresql patroni etcd-server etcd-client "+
			"haproxy pgbouncer python3-etcd python3-psycopg2", strings.Join(missing, ", "))
	}
	return p, nil
}
