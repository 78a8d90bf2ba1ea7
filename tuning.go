package retrypg

import (
	"fmt"
	"time"

	"github.com/retrypg/retrypg/policy"
)

// tuning is what Reconfigure changes. It is swapped as a whole, so that an operation sees all of a change or nothing of it,
// and is not changed itself.
type tuning struct {
	set          settings      // of which only what a TuningOption sets may differ from the core's own
	backoff      policy.Policy // without the limits of the settings
	statements   *policy.Retrier
	transactions *policy.Retrier
}

// tune makes the tuning of settings that have their defaults filled in and are valid.
func (c *core) tune(s settings) (*tuning, error) {
	t := &tuning{set: s, backoff: s.backoff}
	var err error
	if t.backoff == nil {
		if t.backoff, err = policy.Exponential(s.initialDelay, s.maxDelay, s.multiplier, s.jitter); err != nil {
			return nil, err
		}
	}
	p, err := limited(t.backoff, s.maxAttempts, s.maxElapsed)
	if err != nil {
		return nil, err
	}
	t.statements, err = policy.NewRetrier(policy.RetrierOptions{Policy: p, Budget: c.budget, Decide: decideStatement, OnRetry: onRetry})
	if err != nil {
		return nil, err
	}
	t.transactions, err = c.transactionRetrier(p)
	return t, err
}

// retune applies options to the settings that are in force.
func (c *core) retune(opts []TuningOption) error {
	c.retuning.Lock()
	defer c.retuning.Unlock()
	all := make([]Option, len(opts))
	for i, o := range opts {
		if o != nil {
			all[i] = o
		}
	}
	s, err := c.tuned.Load().set.with(all)
	if err != nil {
		return err
	}
	t, err := c.tune(s)
	if err != nil {
		return fmt.Errorf("retrypg: wrong settings: %w", err)
	}
	c.tuned.Store(t)
	return nil
}

// Reconfigure changes the settings of opts while the connector is in use; the others stay as they are. What begins from then
// on has the new ones, and what runs already keeps those that it began with. On an error nothing has changed. It is
// safe for concurrent use and does not block.
func (c *Connector) Reconfigure(opts ...TuningOption) error { return c.core.retune(opts) }

// Reconfigure is that of Connector.
func (p *Pool) Reconfigure(opts ...TuningOption) error { return p.core.retune(opts) }

// connectMaxElapsed bounds how long connecting waits where the context has no deadline.
func (c *core) connectMaxElapsed() time.Duration { return c.tuned.Load().set.connectMaxElapsed }
