// Command retrypg is the tool of the library of the same name: it waits for a PostgreSQL server, examines one, says what
// the library does with an error and how its policies wait, and shows it next to plain pgx while servers fail.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx := untilSignal()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit statuses that all sub-commands share. A signal that ended the command gives 128 and its number, as in a shell.
const (
	exitOK    = 0
	exitUsage = 64 // EX_USAGE of sysexits.h
)

// exit is the error of a sub-command that ran: its status and, unless everything was said already, its reason.
type exit struct {
	status int
	err    error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// run runs the tool and returns its exit status. When ctx ends, what it started is cleaned up first.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var s *signalError
	if errors.As(context.Cause(ctx), &s) {
		_, _ = fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), s)
		return 128 + int(s.signal)
	}
	var e *exit
	if errors.As(err, &e) {
		if e.err != nil {
			_, _ = fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), e.err)
		}
		return e.status
	}
	// All else comes from the parsing of the command line.
	_, _ = fmt.Fprintf(stderr, "%s: %v\nsee %s --help\n", cmd.CommandPath(), err, cmd.CommandPath())
	return exitUsage
}

// signalError is the cause of the context that a signal ended.
type signalError struct{ signal syscall.Signal }

func (e *signalError) Error() string { return "ended by signal: " + e.signal.String() }

// untilSignal returns a context that the first SIGINT or SIGTERM ends. The second one ends the process.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() { // for as long as the process lives
		s := <-signals
		signal.Stop(signals)
		cancel(&signalError{s.(syscall.Signal)})
	}()
	return ctx
}
