package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/policy"
)

// Exit statuses of retrypg wait, besides those in main.go. Two for the command are those of a shell.
const (
	exitNotReady      = 1
	exitNotHealable   = 2
	exitNotExecutable = 126
	exitNotFound      = 127
)

// defaultWaitTimeout is enough for a container that makes its data directory first, and short enough for the start-up
// probes of the usual orchestrators.
const defaultWaitTimeout = 60 * time.Second

const waitHelp = `Wait until a PostgreSQL server accepts connections and answers a statement, in the role that
target_session_attrs asks for. It waits while the server is not there, starts up, recovers, is full,
or has another role. What waiting cannot heal ends it at once.

The server is that of DSN (URL or keyword/value, several hosts too), else of the variable RETRYPG_DSN,
else of PGHOST, PGPORT, PGUSER, PGDATABASE, PGSERVICE and the like. A password is better left to
PGPASSWORD or a password file: others can read command lines.

Each change of state is one line on standard error. After "--" a command may follow, which takes the
place of this process once the server is ready.

Exit status:
    0  ready
    1  not ready when the time was over
    2  waiting cannot heal it: wrong password, no such database, TLS refused, ...
   64  wrong usage: unknown flag, wrong DSN, no server named
  126  ready, but the command could not be run
  127  ready, but the command was not found
  130  interrupted (SIGINT); 143 by SIGTERM`

const waitExample = `  retrypg wait postgres://app@db:5432/shop
  retrypg wait --timeout 5m 'postgres://app@db1,db2/shop?target_session_attrs=read-write' -- ./server --port 80
  PGHOST=db PGUSER=app retrypg wait --quiet`

func newWait() *cobra.Command {
	w := waiting{execute: execute}
	cmd := &cobra.Command{
		Use:     "wait [DSN] [-- command [argument ...]]",
		Short:   "Wait until a server is ready, then run a command",
		Long:    waitHelp,
		Example: waitExample,
		Args:    w.takeArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w.out = cmd.ErrOrStderr()
			return w.run(cmd.Context())
		},
	}
	cmd.Flags().DurationVar(&w.timeout, "timeout", defaultWaitTimeout, "how long to wait at most, such as 90s or 5m")
	cmd.Flags().BoolVarP(&w.quiet, "quiet", "q", false, "print errors only")
	return cmd
}

// waiting is one run of retrypg wait.
type waiting struct {
	dsn     string
	command []string
	timeout time.Duration
	quiet   bool
	out     io.Writer
	server  string // where it is, for messages
	execute func(path string, args []string) error
}

// takeArgs reads what is not a flag. Its errors are those of wrong usage.
func (w *waiting) takeArgs(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		if w.command = args[dash:]; len(w.command) == 0 {
			return errors.New("a command must follow --")
		}
		args = args[:dash]
	}
	if w.timeout <= 0 {
		return fmt.Errorf("--timeout %v: give a positive duration such as 90s", w.timeout)
	}
	if len(args) > 1 {
		// The arguments are not repeated: one of them may hold a password.
		return fmt.Errorf("%d arguments given: give one DSN, in quotes, and a command after --", len(args))
	}
	dsn, err := dsnOf(args)
	w.dsn = dsn
	return err
}

func (w *waiting) run(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	err := retrypg.WaitReady(timed, w.dsn,
		retrypg.WithConnConfig(w.note), retrypg.WithReadyProgress(w.tell), retrypg.WithoutTelemetry())
	if err != nil {
		return judge(err)
	}
	cancel()
	if len(w.command) == 0 {
		return nil
	}
	return w.runCommand()
}

// note keeps where the server is.
func (w *waiting) note(cfg *pgx.ConnConfig) error {
	seen := make(map[string]bool)
	var addrs []string
	add := func(host string, port uint16) {
		addr := net.JoinHostPort(host, strconv.Itoa(int(port)))
		if strings.HasPrefix(host, "/") {
			addr = host
		}
		if !seen[addr] {
			seen[addr] = true
			addrs = append(addrs, addr)
		}
	}
	add(cfg.Host, cfg.Port)
	for _, f := range cfg.Fallbacks {
		add(f.Host, f.Port)
	}
	w.server = strings.Join(addrs, ",")
	return nil
}

// tell prints a change of state.
func (w *waiting) tell(e retrypg.ReadyEvent) {
	if w.quiet {
		return
	}
	after := fmt.Sprintf("after %.1fs", e.Elapsed.Seconds())
	if e.Attempts > 1 {
		after += fmt.Sprintf(", attempt %d", e.Attempts)
	}
	_, _ = fmt.Fprintf(w.out, "retrypg wait: %s: %s (%s)\n", w.server, e.State, after)
}

// judge gives the error of WaitReady its exit status.
func judge(err error) error {
	var wrongDSN *retrypg.DSNError
	var exhausted *retrypg.ExhaustedError
	switch {
	case errors.As(err, &wrongDSN):
		return &exit{exitUsage, err}
	case errors.As(err, &exhausted) && exhausted.Reason != policy.StopNotRetryable:
		return &exit{exitNotReady, err}
	}
	return &exit{exitNotHealable, fmt.Errorf("waiting cannot heal this: %w", err)}
}
