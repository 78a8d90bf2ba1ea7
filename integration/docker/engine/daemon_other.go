//go:build !linux

package main

import (
	"context"
	"fmt"
)

// daemon exists on Linux only: elsewhere an engine runs in a virtual machine,
// which its own application starts.
type daemon struct{}

func startDaemon(context.Context, *client) (*daemon, error) {
	return nil, fmt.Errorf("no Docker engine answers: %w", errNoEngine)
}

func (*daemon) client() *client            { return nil }
func (*daemon) stop(context.Context) error { return nil }
