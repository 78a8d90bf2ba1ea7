package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/doctor"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// exitProblems is the exit status of doctor where it has found a problem.
const exitProblems = 1

const doctorHelp = `Connect to each host of a DSN and print what retrypg would do there: who the server is and which role
it has, whether a pooler is in between, whether a COMMIT whose answer is lost can be found out, which
timeouts and settings would hurt, and a DSN that is better.

The server is that of DSN (URL or keyword/value, several hosts too), else of the variable RETRYPG_DSN,
else of PGHOST, PGPORT, PGUSER, PGDATABASE, PGSERVICE and the like. A password is better left to
PGPASSWORD or a password file: others can read command lines. None is printed.

It reads only, in one session for each host, and takes at most twice the connect_timeout (5 s each,
where it is not given). Levels: ok, note, warning, problem.

Exit status:
    0  no problem was found; there may be notes and warnings
    1  a problem was found, or the report could not be written
   64  wrong usage: unknown flag, wrong DSN, no server named
  130  interrupted (SIGINT); 143 by SIGTERM`

const doctorExample = `  retrypg doctor postgres://app@db:5432/shop
  retrypg doctor --json 'host=db1,db2 user=app dbname=shop target_session_attrs=read-write'
  PGHOST=db PGUSER=app retrypg doctor`

func newDoctor() *cobra.Command {
	var target *doctor.Target
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "doctor [DSN]",
		Short:   "Examine the servers of a DSN: what retrypg would do there, and what would hurt",
		Long:    doctorHelp,
		Example: doctorExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%d arguments given: give one DSN, in quotes", len(args)) // one may hold a password
			}
			dsn, err := dsnOf(args)
			if err != nil {
				return err
			}
			target, err = doctor.ParseTarget(dsn)
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			report := doctor.New(target).Examine(cmd.Context())
			if err := cmd.Context().Err(); err != nil {
				return &exit{exitProblems, err}
			}
			var err error
			if out := cmd.OutOrStdout(); asJSON {
				err = report.WriteJSON(out)
			} else {
				err = report.Write(out, terminal.LookOf(out))
			}
			if err != nil {
				return &exit{exitNotWritten, fmt.Errorf("write the report: %w", err)}
			}
			if report.Level == doctor.Problem {
				return &exit{exitProblems, errors.New("a problem was found")}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
