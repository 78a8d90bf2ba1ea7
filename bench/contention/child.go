package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// childVariable is set in the environment of the processes of the load.
const childVariable = "RETRYPG_CONTENTION_CHILD"

// order is what the parent tells a process to do: one turn.
type order struct {
	Scenario  string        `json:"scenario"`
	Contender string        `json:"contender"`
	DSN       string        `json:"dsn"`
	Workers   int           `json:"workers"` // of this process
	First     int           `json:"first"`   // the number of its first worker
	Total     int           `json:"total"`   // workers of all processes
	Turn      time.Duration `json:"turn"`
}

// child does what it is told to until there is nothing more. What it has opened for a contender it keeps: what a library has
// learned in one turn it knows in the next.
func child(in io.Reader, out io.Writer) error {
	ctx := context.Background()
	open := make(map[string]call)
	var closers []func()
	defer func() {
		for _, c := range closers {
			c()
		}
	}()
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		sc := selected(o.Scenario)[0]
		run := open[o.Contender]
		if run == nil {
			c, ok := contenderNamed(o.Contender)
			if !ok {
				return fmt.Errorf("there is no contender %q", o.Contender)
			}
			var done func()
			var err error
			if run, done, err = c.open(ctx, o.DSN, o.Workers, sc); err != nil {
				return fmt.Errorf("%s: %w", o.Contender, err)
			}
			closers = append(closers, done)
			open[o.Contender] = run
			// Connections, plans and caches, with transfers that are in nobody's way; and then what there is to learn.
			apart := sc
			apart.alone = true
			turn(ctx, run, apart, o.Workers, o.First, o.Total, warmUp)
			turn(ctx, run, sc, o.Workers, o.First, o.Total, 4*warmUp)
		}
		if err := answers.Encode(turn(ctx, run, sc, o.Workers, o.First, o.Total, o.Turn)); err != nil {
			return err
		}
	}
}

// warmUp comes before the first turn of a contender, and counts for nothing.
const warmUp = 100 * time.Millisecond

// process is one process of the load.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	orders  *json.Encoder
	answers *json.Decoder
}

func startProcess(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self) //nolint:gosec // this program itself
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a process of the load: %w", err)
	}
	return &process{cmd: cmd, in: in, orders: json.NewEncoder(in), answers: json.NewDecoder(out)}, nil
}

func (p *process) tell(o order) error { return p.orders.Encode(o) }

func (p *process) answer() (t tally, err error) {
	err = p.answers.Decode(&t)
	return t, err
}

// close ends the process, which closes its connections.
func (p *process) close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}
