package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// Exit statuses of retrypg demo, besides those in main.go.
const (
	exitPromiseBroken = 1
	exitDemoFailed    = 2
	exitNoPostgreSQL  = 3
)

const demoHelp = `Start a PostgreSQL primary, a synchronous standby and fault proxies, and run the same bank transfers
through plain pgx, through pgx with a retry loop, and through retrypg, at the same time, while servers
and network fail on schedule: late start, killed backends, deadlocks and serialization failures, lost
COMMITs, a crash restart, a failover. Then compare what each program told its caller with the ledger.

It takes below a minute. The servers listen on 127.0.0.1 only; they and their directories are gone
afterwards, also after Ctrl-C. Server programs are found where they are installed (or in the
directory that RETRYPG_PG_BIN names), else fetched with npm.

The last line names an HTML file with the same numbers and charts over time. It loads nothing from
elsewhere. Each run writes it again.

With --otlp the metrics and spans of the third program, which runs through retrypg, go to an
OpenTelemetry collector. One that is away changes nothing but for a line on standard error.

Exit status:
    0  retrypg lost nothing, duplicated nothing, and reported no transfer as failed that was applied
    1  it did one of these
    2  the demo could not be run to its end
    3  no PostgreSQL server programs found
   64  wrong usage
  130  interrupted (SIGINT); 143 by SIGTERM`

func newDemo() *cobra.Command {
	var opts demo.Options
	var asJSON, logs bool
	var export otlp
	var html string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "The same load through plain pgx and through retrypg while servers fail",
		Long:  demoHelp,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q", args[0])
			}
			if err := errors.Join(opts.Validate(), export.validate()); err != nil {
				return err
			}
			if html != "" && cmd.Flags().Changed("report") {
				return checkHTML(html)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			stdout, progress := cmd.OutOrStdout(), cmd.OutOrStdout()
			if asJSON {
				progress = cmd.ErrOrStderr() // standard output is for the report alone
			}
			opts.Screen = demo.NewScreen(progress, terminal.LookOf(progress))
			if logs {
				opts.Log = cmd.ErrOrStderr()
			}
			options, stop, err := export.start(cmd.Context(), "retrypg-demo", cmd.ErrOrStderr())
			if err != nil {
				return &exit{exitDemoFailed, err}
			}
			opts.Retrypg = options
			report, err := demo.Run(cmd.Context(), opts)
			stop()
			if err != nil {
				return demoError(err)
			}
			if asJSON {
				err = report.WriteJSON(stdout)
			} else {
				err = report.Write(stdout, terminal.LookOf(stdout))
			}
			if err != nil {
				return &exit{exitDemoFailed, fmt.Errorf("write the report: %w", err)}
			}
			if err := showHTML(progress, html, cmd.Flags().Changed("report"), report); err != nil {
				return &exit{exitDemoFailed, err}
			}
			if len(report.Check()) > 0 {
				return &exit{exitPromiseBroken, errors.New(report.Finding())}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&opts.Duration, "duration", demo.DefaultDuration, "how long the load runs; the faults are spread over it")
	flags.IntVar(&opts.Workers, "workers", demo.DefaultWorkers, "transfers that each program runs at a time")
	flags.Uint64Var(&opts.Seed, "seed", 0, "which accounts and amounts the transfers have")
	flags.BoolVar(&asJSON, "json", false, "print the report as JSON; progress goes to standard error")
	export.addFlags(flags)
	flags.StringVar(&html, "report", defaultHTML(), "`FILE` that the HTML report is written to; empty: none")
	flags.BoolVar(&logs, "server-log", false, "print the logs of the servers to standard error")
	return cmd
}

func demoError(err error) error {
	var notFound *pgtest.NotFoundError
	if errors.As(err, &notFound) {
		return &exit{exitNoPostgreSQL, notFound}
	}
	return &exit{exitDemoFailed, err}
}
