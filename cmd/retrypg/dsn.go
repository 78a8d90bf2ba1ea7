package main

import (
	"fmt"
	"os"
)

// envDSN is the variable that holds the DSN where the command line does not.
const envDSN = "RETRYPG_DSN"

// dsnOf returns the DSN of the argument, if there is one, else of the environment. It is empty where the PG* variables name
// the server.
func dsnOf(args []string) (string, error) {
	switch {
	case len(args) > 0 && args[0] != "":
		return args[0], nil
	case os.Getenv(envDSN) != "":
		return os.Getenv(envDSN), nil
	case !serverInEnvironment():
		return "", fmt.Errorf("no server named: give a DSN, or set %s or PGHOST", envDSN)
	}
	return "", nil
}

// serverInEnvironment reports whether a variable says which server is meant. Without one, pgx would take a local one.
func serverInEnvironment() bool {
	for _, name := range []string{"PGHOST", "PGPORT", "PGSERVICE", "PGDATABASE"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}
