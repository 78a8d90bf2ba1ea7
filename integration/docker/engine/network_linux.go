package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
)

const (
	bridgeName  = "docker0"                       // the device of dockerd's default network
	forwardFile = "/proc/sys/net/ipv4/ip_forward" // set to 1 by dockerd
	filterSave  = "iptables-save"                 // prints every table that is in use
	filterLoad  = "iptables-restore"              // replaces the tables that its input names
	unsetPolicy = "-"                             // how iptables-save marks a chain that is not built in
	tableMark   = "*"                             // starts a table in iptables-save's output
	chainMark   = ":"                             // starts a chain there, followed by its policy
)

// networkState is what dockerd changes for all of the machine and leaves
// behind when it ends: it turns IP forwarding on, sets the FORWARD chain's
// policy to DROP, adds chains of its own and a bridge.
type networkState struct {
	forward   []byte
	tables    map[string]string // by name: the part of iptables-save's output
	hadBridge bool
}

// saveNetwork records the state before dockerd starts.
func saveNetwork(ctx context.Context) (*networkState, error) {
	forward, err := os.ReadFile(forwardFile)
	if err != nil {
		return nil, fmt.Errorf("read the state of IP forwarding: %w", err)
	}
	tables, err := filterTables(ctx)
	if err != nil {
		return nil, err
	}
	_, err = net.InterfaceByName(bridgeName)
	return &networkState{forward: forward, tables: tables, hadBridge: err == nil}, nil
}

// restore puts the recorded state back. What another program changed in the
// same tables meanwhile is lost.
func (s *networkState) restore(ctx context.Context) error {
	var errs []error
	if now, err := filterTables(ctx); err != nil {
		errs = append(errs, err)
	} else if err := loadTables(ctx, s.before(now)); err != nil {
		errs = append(errs, err)
	}
	if err := os.WriteFile(forwardFile, s.forward, 0o644); err != nil {
		errs = append(errs, fmt.Errorf("restore IP forwarding: %w", err))
	}
	if _, err := net.InterfaceByName(bridgeName); err == nil && !s.hadBridge {
		if out, err := exec.CommandContext(ctx, "ip", "link", "delete", bridgeName).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("delete the bridge %s: %w: %s", bridgeName, err, bytes.TrimSpace(out)))
		}
	}
	return errors.Join(errs...)
}

// before returns what to load so that every table that exists now is again as
// it was. A table that was not in use gets its built-in chains, empty and with
// the policy ACCEPT, which is how the kernel makes it.
func (s *networkState) before(now map[string]string) string {
	var text strings.Builder
	for name, table := range now {
		if old, ok := s.tables[name]; ok {
			text.WriteString(old)
			continue
		}
		text.WriteString(tableMark + name + "\n")
		for line := range strings.Lines(table) {
			chain, policy, _ := strings.Cut(line, " ")
			if strings.HasPrefix(chain, chainMark) && !strings.HasPrefix(policy, unsetPolicy) {
				text.WriteString(chain + " ACCEPT\n")
			}
		}
		text.WriteString("COMMIT\n")
	}
	return text.String()
}

// filterTables returns the packet filter's tables by name.
func filterTables(ctx context.Context) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, filterSave).Output()
	if err != nil {
		return nil, fmt.Errorf("read the packet filter's rules with %s: %w", filterSave, err)
	}
	tables := map[string]string{}
	name := ""
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, tableMark) {
			name = strings.TrimPrefix(line, tableMark)
		}
		if name == "" || strings.HasPrefix(line, "#") {
			continue
		}
		tables[name] += line + "\n"
	}
	return tables, lines.Err()
}

// loadTables replaces the tables that the text names.
func loadTables(ctx context.Context, text string) error {
	cmd := exec.CommandContext(ctx, filterLoad)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("restore the packet filter's rules with %s: %w: %s", filterLoad, err, bytes.TrimSpace(out))
	}
	return nil
}
