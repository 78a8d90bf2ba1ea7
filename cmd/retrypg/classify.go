package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/classify"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// exitNotKnown is the exit status of classify where nothing is known of an error.
const exitNotKnown = 1

const classifyHelp = `Say what retrypg does with an error, and why. The error is a SQLSTATE (40001), the name of its
condition (serialization_failure), or a message or line of a log, in quotes. Several can be given.

What decides is the code with its severity and origin. Where these make a difference and are not
given, each verdict that differs is shown.

    connecting  what a caller sees that waits for a connection
    statement   one plain statement outside of a transaction
    WithTx      a statement in WithTx or WithPgxTx, before its COMMIT
    COMMIT      the error is the answer to COMMIT

Exit status:
    0  printed
    1  of one of the errors nothing is known
   64  wrong usage: no error given, unknown flag or severity`

const classifyExample = `  retrypg classify 40P01
  retrypg classify --severity FATAL 57P01 admin_shutdown
  retrypg classify --proxy --json 08P01
  retrypg classify 'ERROR: deadlock detected (SQLSTATE 40P01)' 'connection refused'`

var severities = []string{"ERROR", "FATAL", "PANIC", "WARNING"}

func newClassify() *cobra.Command {
	var a classify.Assumption
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "classify {CODE|NAME|MESSAGE} ...",
		Short:   "Say what retrypg does with an error, and why",
		Long:    classifyHelp,
		Example: classifyExample,
		Args: func(_ *cobra.Command, args []string) error {
			a.Severity = strings.ToUpper(a.Severity)
			switch {
			case len(args) == 0 || slices.Contains(args, ""):
				return errors.New("no error given: give a SQLSTATE, the name of a condition, or a message in quotes")
			case a.Severity != "" && !slices.Contains(severities, a.Severity):
				return fmt.Errorf("severity %q: give one of %s", a.Severity, strings.Join(severities, ", "))
			case a.Proxy && a.Routine != "":
				return errors.New("--proxy and --routine given: what a proxy makes up has no routine")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var results []classify.Result
			for _, arg := range args {
				results = append(results, classify.Find(arg, a)...)
			}
			return writeResults(cmd.OutOrStdout(), results, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&a.Severity, "severity", "", "of the error: "+strings.Join(severities, ", "))
	flags.StringVar(&a.Routine, "routine", "", "function of the server that reported it, as in ProcessInterrupts")
	flags.BoolVar(&a.Proxy, "proxy", false, "a pooler or proxy made the error: it has no routine")
	flags.BoolVar(&asJSON, "json", false, "print JSON: an array of results")
	return cmd
}

func writeResults(w io.Writer, results []classify.Result, asJSON bool) error {
	err := printResults(w, results, asJSON)
	if err != nil {
		return &exit{exitNotWritten, fmt.Errorf("write the results: %w", err)}
	}
	for _, r := range results {
		if !r.Known {
			return &exit{exitNotKnown, fmt.Errorf("nothing is known of %q", r.Input)}
		}
	}
	return nil
}

func printResults(w io.Writer, results []classify.Result, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(results)
	}
	for i := range results {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := results[i].Write(w, terminal.LookOf(w)); err != nil {
			return err
		}
	}
	return nil
}
