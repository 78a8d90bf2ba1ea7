package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/backoff"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// exitNotWritten is the exit status of a report or plot that could not be written.
const exitNotWritten = 1

const backoffHelp = `Print the waits between the attempts of a retry policy, as those of package policy: how long each
one is at least, on average and at most, and what they add up to. With no flags it is the policy of
transactions, with each kind of jitter.

Kinds: fixed, linear, exponential. Jitters: none, full, equal, decorrelated, proportional, or
proportional:F with a factor F from 0 to 1. "all" stands for all of them; several are separated by
commas. Times in JSON are seconds.

Exit status:
    0  printed
    1  the report or the plot could not be written
   64  wrong usage: unknown flag or kind, a policy that there is not`

const backoffExample = `  retrypg backoff --jitter full
  retrypg backoff --kind all --jitter none --initial 100ms --max 2s --attempts 8
  retrypg backoff --plot backoff.svg
  retrypg backoff storm --outage 2s --plot storm.png`

const stormHelp = `Simulate many clients that one outage makes fail at the same time, and count the attempts that come at
the server in each 100 ms, by the kind of jitter. The server serves each attempt that comes after the
outage, and none before.

Exit status:
    0  printed
    1  the report or the plot could not be written
   64  wrong usage: unknown flag or kind, a policy that there is not`

// backoffCommand is one run of retrypg backoff, or of retrypg backoff storm.
type backoffCommand struct {
	settings backoff.Settings
	policies []backoff.Policy
	seed     uint64
	asJSON   bool
	plot     string
}

func newBackoff() *cobra.Command {
	b := &backoffCommand{}
	var attempts, draws int
	var report *backoff.Report
	cmd := &cobra.Command{
		Use:     "backoff",
		Short:   "Show the waits of retry policies, as a table or a plot",
		Long:    backoffHelp,
		Example: backoffExample,
		Args: func(_ *cobra.Command, args []string) (err error) {
			if err = b.check(args); err != nil {
				return err
			}
			report, err = backoff.Sequences(b.policies, attempts, draws, b.seed)
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return b.write(cmd.OutOrStdout(), report) },
	}
	shared := cmd.PersistentFlags()
	shared.DurationVar(&b.settings.Initial, "initial", retrypg.DefaultInitialDelay, "ceiling of the first wait")
	shared.DurationVar(&b.settings.Max, "max", retrypg.DefaultMaxDelay, "ceiling of every wait (linear, exponential)")
	shared.DurationVar(&b.settings.Increment, "increment", retrypg.DefaultInitialDelay, "growth of the ceiling (linear)")
	shared.Float64Var(&b.settings.Multiplier, "multiplier", retrypg.DefaultMultiplier, "growth of the ceiling (exponential)")
	shared.StringSliceVar(&b.settings.Kinds, "kind", []string{"exponential"}, "how the ceiling grows")
	shared.StringSliceVar(&b.settings.Jitters, "jitter", []string{backoff.All}, "how a wait is drawn below its ceiling")
	shared.Uint64Var(&b.seed, "seed", 1, "of the random numbers: the same seed gives the same output")
	shared.BoolVar(&b.asJSON, "json", false, "print JSON")
	shared.StringVar(&b.plot, "plot", "", "draw into a `file` that ends in .svg or .png, besides printing")
	cmd.Flags().IntVar(&attempts, "attempts", retrypg.DefaultMaxAttempts, "attempts in all, the first included")
	cmd.Flags().IntVar(&draws, "draws", 10_000, "how often each policy is drawn")
	cmd.AddCommand(newStorm(b))
	return cmd
}

func newStorm(b *backoffCommand) *cobra.Command {
	var s backoff.StormSettings
	var storm *backoff.Storm
	cmd := &cobra.Command{
		Use:   "storm",
		Short: "Count the attempts of many clients after one outage",
		Long:  stormHelp,
		Args: func(_ *cobra.Command, args []string) (err error) {
			if err = b.check(args); err != nil {
				return err
			}
			if kind := b.policies[0].Kind; kind != b.policies[len(b.policies)-1].Kind {
				return fmt.Errorf("several kinds given: a storm has one, such as %s", kind)
			}
			s.Seed = b.seed
			storm, err = backoff.SimulateStorm(b.policies, s)
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return b.write(cmd.OutOrStdout(), storm) },
	}
	flags := cmd.Flags()
	flags.IntVar(&s.Clients, "clients", 1000, "clients that fail together")
	flags.DurationVar(&s.Outage, "outage", time.Second, "how long the server is away")
	flags.IntVar(&s.Attempts, "attempts", 0, "after how many attempts a client gives up; 0: never")
	return cmd
}

// check reads the policies. Its errors are those of wrong usage.
func (b *backoffCommand) check(args []string) (err error) {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	if b.plot != "" {
		if _, err := backoff.PlotFormat(b.plot); err != nil {
			return err
		}
	}
	b.policies, err = b.settings.Policies()
	return err
}

// write prints a result, and draws it where that is asked for.
func (b *backoffCommand) write(w io.Writer, result interface {
	Write(w io.Writer, look terminal.Look) error
	PlotFile(file string) error
},
) error {
	if b.plot != "" {
		if err := result.PlotFile(b.plot); err != nil {
			return &exit{exitNotWritten, err}
		}
	}
	var err error
	if b.asJSON {
		err = backoff.WriteJSON(w, result)
	} else {
		err = result.Write(w, terminal.LookOf(w))
	}
	if err != nil {
		return &exit{exitNotWritten, fmt.Errorf("write the report: %w", err)}
	}
	return nil
}
