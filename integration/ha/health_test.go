//go:build ha && linux

package ha_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// member is one entry of Patroni's GET /cluster. The state of a replica is running, and in later versions streaming.
type member struct {
	Name     string          `json:"name"`
	Role     string          `json:"role"`
	State    string          `json:"state"`
	Timeline int             `json:"timeline"`
	Lag      json.RawMessage `json:"lag"` // a number, or "unknown"
}

// healthy waits until Patroni says that all members run, on one timeline and without lag, one of them synchronous, and the
// leader's server says that both others stream from it. It returns the leader.
func (c *cluster) healthy(ctx context.Context) (*node, error) {
	var leader *node
	err := c.until(ctx, "a healthy cluster", func(ctx context.Context) (err error) {
		if leader, err = c.members(ctx); err != nil {
			return err
		}
		return c.streaming(ctx, leader)
	})
	return leader, err
}

// members asks every node of the cluster, as each has a picture of its own, and returns the leader if all is well.
func (c *cluster) members(ctx context.Context) (leader *node, err error) {
	for _, asked := range c.nodes {
		var picture struct{ Members []member }
		if err := get(ctx, asked, "/cluster", &picture); err != nil {
			return nil, err
		}
		roles := map[string]int{}
		for _, m := range picture.Members {
			roles[m.Role]++
			if m.State != "running" && m.State != "streaming" || m.Timeline != picture.Members[0].Timeline {
				return nil, fmt.Errorf("%s says of %s: %s on timeline %d", asked.name, m.Name, m.State, m.Timeline)
			}
			if m.Role != "leader" {
				if string(m.Lag) != "0" {
					return nil, fmt.Errorf("%s says of %s: lag %s", asked.name, m.Name, m.Lag)
				}
				continue
			}
			for _, n := range c.nodes {
				if n.name != m.Name {
					continue
				}
				if leader != nil && leader != n {
					return nil, fmt.Errorf("%s says that %s leads, and another node that %s does", asked.name, n.name, leader.name)
				}
				leader = n
			}
		}
		if roles["leader"] != 1 || roles["sync_standby"] != 1 || roles["replica"] != 1 {
			return nil, fmt.Errorf("%s says that the roles are %v", asked.name, roles)
		}
	}
	return leader, nil
}

// streaming asks the server of the leader itself: what Patroni says is up to a round old.
func (c *cluster) streaming(ctx context.Context, leader *node) error {
	conn, err := c.connect(ctx, leader)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var recovering bool
	var streaming, synchronous int
	err = conn.QueryRow(ctx, `select pg_is_in_recovery(), count(*) filter (where state = 'streaming'), count(*) filter (where sync_state = 'sync')
		from pg_stat_replication`).Scan(&recovering, &streaming, &synchronous)
	if err == nil && (recovering || streaming != 2 || synchronous != 1) {
		err = fmt.Errorf("%s: in recovery: %t; %d standbys stream, %d of them synchronous", leader.name, recovering, streaming, synchronous)
	}
	return err
}

// synchronous returns the node to which the leadership can be handed.
func (c *cluster) synchronous(ctx context.Context) (*node, error) {
	var picture struct{ Members []member }
	if err := get(ctx, c.nodes[0], "/cluster", &picture); err != nil {
		return nil, err
	}
	for _, m := range picture.Members {
		for _, n := range c.nodes {
			if m.Role == "sync_standby" && n.name == m.Name {
				return n, nil
			}
		}
	}
	return nil, errors.New("there is no synchronous standby")
}

// rejoined waits until a node runs as a replica.
func (c *cluster) rejoined(ctx context.Context, n *node) error {
	return c.until(ctx, n.name+" to be a replica", func(ctx context.Context) error { return get(ctx, n, "/replica", nil) })
}

// until asks until there is no error any more.
func (c *cluster) until(ctx context.Context, what string, ask func(ctx context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := ask(attempt)
		cancel()
		if err == nil {
			return nil
		}
		for _, n := range c.nodes {
			if ended := n.patroni.ended(); ended != nil {
				return fmt.Errorf("wait for %s: %w", what, ended)
			}
		}
		for _, p := range c.others {
			if ended := p.ended(); ended != nil {
				return fmt.Errorf("wait for %s: %w", what, ended)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(poll):
		}
	}
}

// client keeps no connection, which would be a goroutine too.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// get asks the Patroni of a node; every status but 200 is an error.
func get(ctx context.Context, n *node, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", n.api, path), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: GET %s: %s", n.name, path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
