package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// askTimeout bounds one question to the engine. An engine that is there
// answers within milliseconds.
const askTimeout = 10 * time.Second

// client is the docker command, together with the environment that makes it
// and testcontainers talk to one particular engine.
type client struct {
	path string
	env  []string
}

// findClient returns the docker command, and installs it with the engine where
// it is missing.
func findClient(ctx context.Context) (*client, error) {
	path, err := exec.LookPath("docker")
	if err != nil {
		if err := installEngine(ctx); err != nil {
			return nil, fmt.Errorf("no docker command found: %w", err)
		}
		if path, err = exec.LookPath("docker"); err != nil {
			return nil, fmt.Errorf("no docker command after the installation: %w", err)
		}
	}
	return &client{path: path}, nil
}

// run runs one docker command and returns its trimmed output.
func (c *client) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin = stdin
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("docker %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// serverVersion returns the engine's version, or an error if none answers.
func (c *client) serverVersion(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return c.run(ctx, nil, "version", "--format", "{{.Server.Version}}")
}

// hasImage tells whether the engine holds the image already.
func (c *client) hasImage(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := c.run(ctx, nil, "image", "inspect", "--format", "{{.Id}}", name)
	return err == nil
}
