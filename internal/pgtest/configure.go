package pgtest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// confName is included at the end of postgresql.conf. It is a file, not command line flags, because programs that
// start the server themselves (pg_rewind) read it too.
const confName = "pgtest.conf"

// configure writes what differs between clusters into the data directory. It may be called again, as after a copy.
func (c *Cluster) configure() error {
	if err := c.includeConf(); err != nil {
		return err
	}
	if err := c.writeConf(); err != nil {
		return err
	}
	if c.opts.TLS {
		if err := c.writeCertificate(); err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
	}
	trusted := []string{"host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"}
	if c.opts.Namespace != "" {
		trusted = []string{"local all all trust", "host all all all trust"}
	}
	hba := slices.Concat(c.opts.HBA, trusted)
	return c.writeData("pg_hba.conf", strings.Join(hba, "\n")+"\n")
}

func (c *Cluster) includeConf() error {
	file := filepath.Join(c.DataDir(), "postgresql.conf")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	include := "include '" + confName + "'\n"
	if strings.HasSuffix(string(text), include) {
		return nil
	}
	return os.WriteFile(file, append(text, include...), 0o600)
}

func (c *Cluster) writeConf() error {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(c.Port()),
		"unix_socket_directories": "", // a path below a temporary directory can exceed the 107 bytes it may have
		"cluster_name":            c.opts.Name,
		"logging_collector":       "off",
		"log_line_prefix":         "%m [%p] %q%u@%d ",
		"fsync":                   "off",
		"shared_buffers":          "32MB",
		// Shared memory in the data directory goes with it, also after kill -9.
		"dynamic_shared_memory_type": "mmap",
		"wal_log_hints":              "on",
		"wal_keep_size":              "128MB",
		"max_wal_senders":            "10",
		// How long a standby waits before it asks again: the default of 5 s is also how long a promotion can take.
		"wal_retrieve_retry_interval": "100ms",
		"timezone":                    "UTC",
	}
	if c.opts.Namespace != "" {
		settings["listen_addresses"] = "*"
		settings["unix_socket_directories"] = c.dir
	}
	if c.opts.Fsync {
		settings["fsync"] = "on"
	}
	if c.opts.TLS {
		settings["ssl"] = "on"
		settings["ssl_cert_file"] = certName
		settings["ssl_key_file"] = keyName
	}
	maps.Copy(settings, c.opts.Settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s = %s\n", name, quoteSetting(settings[name]))
	}
	return c.writeData(confName, text.String())
}

func quoteSetting(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(value) + "'"
}

// writeData writes a file that only the server's user may read, as it demands of its key.
func (c *Cluster) writeData(name, text string) error {
	file := filepath.Join(c.DataDir(), name)
	return errors.Join(os.WriteFile(file, []byte(text), 0o600), giveAway(file))
}
