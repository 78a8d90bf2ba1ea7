//go:build linux && netns

package net_test

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Addresses of the two ends, of a range that is reserved for documentation.
const (
	clientIP = "192.0.2.1"
	serverIP = "192.0.2.2"
)

var (
	// serverSide is the file of the network namespace in which servers run.
	serverSide string
	// holder is the process that keeps it. It ends with this one, as its input does, which is never closed.
	holder      = exec.Command("cat")
	holderInput io.Closer
)

// wire makes the server's namespace and joins it to that of this process.
func wire() (err error) {
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if holderInput, err = holder.StdinPipe(); err != nil {
		return err
	}
	if err := holder.Start(); err != nil {
		return err
	}
	pid := strconv.Itoa(holder.Process.Pid)
	serverSide = "/proc/" + pid + "/ns/net"
	for _, command := range []string{
		"ip link set lo up",
		"ip link add client type veth peer name server netns " + pid,
		"ip addr add " + clientIP + "/24 dev client",
		"ip link set client up",
		atServer("ip link set lo up"),
		atServer("ip addr add " + serverIP + "/24 dev server"),
		atServer("ip link set server up"),
	} {
		if err := invoke(command); err != nil {
			return err
		}
	}
	return nil
}

func atServer(command string) string { return "nsenter --net=" + serverSide + " " + command }

// invoke runs a command; no argument of one has a space in it.
func invoke(command string) error {
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}

// fault is something that happens to the network, at the server's end.
type fault struct {
	name string
	// begin and end are what is run there; PORT stands for the server's.
	begin, end []string
	// arrives says that what the client sends reaches the server.
	arrives bool
	// answers says that the client is told at once that nothing gets through.
	answers bool
}

var (
	linkDown = fault{
		name:  "link down",
		begin: []string{"ip link set server down"}, end: []string{"ip link set server up"},
	}
	dropAll = filter("everything dropped", false,
		"INPUT -p tcp --dport PORT -j DROP", "OUTPUT -p tcp --sport PORT -j DROP")
	dropAnswers = filter("answers dropped", true, "OUTPUT -p tcp --sport PORT -j DROP")
	reset       = resets(filter("reset", false, "INPUT -p tcp --dport PORT -j REJECT --reject-with tcp-reset"))
)

func resets(f fault) fault {
	f.answers = true
	return f
}

// filter is a fault by rules of the packet filter.
func filter(name string, arrives bool, rules ...string) fault {
	f := fault{name: name, arrives: arrives}
	for _, rule := range rules {
		f.begin = append(f.begin, "iptables -w -I "+rule)
		f.end = append(f.end, "iptables -w -D "+rule)
	}
	return f
}

// inject begins a fault and returns what ends it, at the latest when the test does.
func (f fault) inject(t *testing.T, port int) (heal func()) {
	t.Helper()
	on := true
	run := func(commands []string) {
		for _, command := range commands {
			require.NoError(t, invoke(atServer(strings.ReplaceAll(command, "PORT", strconv.Itoa(port)))))
		}
	}
	heal = func() {
		if on {
			on = false
			run(f.end)
		}
	}
	t.Cleanup(heal)
	run(f.begin)
	return heal
}
