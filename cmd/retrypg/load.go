package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/load"
)

// Exit statuses of retrypg load, besides those in main.go.
const (
	exitUnbalanced = 1
	exitLoadFailed = 2
)

const loadHelp = `Keep a PostgreSQL server under load through retrypg: bank transfers that wait for the server however
long it is away, and lookups that fail fast, behind a circuit breaker. Both work in the schema
retrypg_load, which is made anew at the start and dropped at the end.

With --fault-every something breaks again and again, in turn: the connections of the load are ended,
transfers conflict, a server process is killed, the server is shut down at once. The user must be a
superuser for this, and the server one that is started again by who looks after it, as a container
with a restart policy is. NEVER GIVE IT A SERVER THAT ANYBODY NEEDS.

The server is that of DSN (URL or keyword/value, several hosts too), else of the variable RETRYPG_DSN.
What happens is logged on standard output. docker-compose.yml runs it with Prometheus and Grafana.

Exit status:
    0  the duration is over
    1  money was made or lost, which must not happen
    2  the load could not be run
   64  wrong usage: unknown flag, wrong DSN, no server named
  130  interrupted (SIGINT); 143 by SIGTERM`

func newLoad() *cobra.Command {
	var opts load.Options
	var export otlp
	cmd := &cobra.Command{
		Use:     "load [DSN]",
		Short:   "Keep a server under load, and break it now and then",
		Long:    loadHelp,
		Example: "  retrypg load --otlp 127.0.0.1:4317 --fault-every 1m 'postgres://postgres@db1,db2/test?target_session_attrs=read-write'",
		Args: func(_ *cobra.Command, args []string) (err error) {
			if opts.DSN, err = loadDSN(args); err != nil {
				return err
			}
			return errors.Join(opts.Validate(), export.validate())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runLoad(cmd.Context(), cmd, opts, export)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&opts.Duration, "for", 0, "how long the load runs; 0: until a signal")
	flags.DurationVar(&opts.FaultEvery, "fault-every", 0, "how often something breaks; 0: never")
	flags.IntVar(&opts.Workers, "workers", load.DefaultWorkers, "transfers, and as many lookups, that run at a time")
	export.addFlags(flags)
	return cmd
}

func loadDSN(args []string) (string, error) {
	switch {
	case len(args) > 1:
		// The arguments are not repeated: one of them may hold a password.
		return "", fmt.Errorf("%d arguments given: give one DSN, in quotes", len(args))
	case len(args) == 1 && args[0] != "":
		return args[0], nil
	case os.Getenv(envDSN) != "":
		return os.Getenv(envDSN), nil
	}
	return "", fmt.Errorf("no server named: give a DSN, or set %s", envDSN)
}

func runLoad(ctx context.Context, cmd *cobra.Command, opts load.Options, export otlp) error {
	options, stop, err := export.start(ctx, "retrypg-load", cmd.ErrOrStderr())
	if err != nil {
		return &exit{exitLoadFailed, err}
	}
	defer stop()
	opts.Log = slog.New(slog.NewTextHandler(cmd.OutOrStdout(), nil))
	opts.Retrypg = append(options, retrypg.WithLogger(opts.Log))
	err = load.Run(ctx, opts)
	var wrongDSN *retrypg.DSNError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, load.ErrUnbalanced):
		return &exit{exitUnbalanced, err}
	case errors.As(err, &wrongDSN):
		return &exit{exitUsage, err}
	}
	return &exit{exitLoadFailed, err}
}
