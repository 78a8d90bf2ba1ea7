package doctor

import (
	"regexp"
	"strings"
)

// kinds are servers that say in version() that they are not PostgreSQL, by a part of it. Their transactions are not those
// that pg_xact_status knows of, so that an id is not asked for, whatever the server answers.
var kinds = []struct{ part, name string }{
	{"CockroachDB", "CockroachDB"},
	{"-YB-", "YugabyteDB"},
	{"YugabyteDB", "YugabyteDB"},
	{"Redshift", "Amazon Redshift"},
	{"Greenplum", "Greenplum"},
	{"Materialize", "Materialize"},
	{"RisingWave", "RisingWave"},
}

// services are PostgreSQL as somebody runs it, by the beginning of the names of settings that only it has.
var services = []struct{ prefix, name string }{
	{"aurora", "Amazon Aurora PostgreSQL"}, // before rds., which it has too
	{"apg_", "Amazon Aurora PostgreSQL"},
	{"rds.", "Amazon RDS for PostgreSQL"},
	{"alloydb", "AlloyDB"},
	{"cloudsql.", "Cloud SQL for PostgreSQL"},
	{"azure.", "Azure Database for PostgreSQL"},
	{"neon.", "Neon"},
}

var versionNumber = regexp.MustCompile(`\bv?(\d+(?:\.\d+)*(?:devel|beta\d+|rc\d+)?)`)

// kindOf tells from version(), server_version and settings what server it is. ours says that it is PostgreSQL.
func kindOf(version, number string, settings map[string]setting) (kind, release string, postgres bool) {
	for _, k := range kinds {
		if strings.Contains(version, k.part) {
			return k.name, releaseOf(version, k.part), false
		}
	}
	release, _, _ = strings.Cut(number, " ")
	for _, s := range services {
		for name := range settings {
			if strings.HasPrefix(name, s.prefix) {
				return s.name, release, true
			}
		}
	}
	if strings.Contains(version, "EnterpriseDB") {
		return "EDB Postgres", release, true
	}
	return "PostgreSQL", release, true
}

// releaseOf returns the number that follows the part of version() which names the server.
func releaseOf(version, part string) string {
	_, rest, _ := strings.Cut(version, part)
	if m := versionNumber.FindStringSubmatch(rest); m != nil {
		return m[1]
	}
	return ""
}
