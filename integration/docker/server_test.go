//go:build docker

package docker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"

	_ "github.com/retrypg/retrypg"
)

const (
	serverPort   = "5432/tcp"
	defaultImage = "postgres:17"
	user         = "app"
	password     = "a password of the tests"
	database     = "bank"
)

// server is a PostgreSQL container at an address that is known before the
// container exists and that a restart does not change. Docker gives a random
// port anew at each start, which no application could follow.
type server struct {
	addr   netip.AddrPort
	docker *testcontainers.DockerClient
	box    *postgres.PostgresContainer
}

// newServer chooses the address; the container is made by run.
func newServer(t *testing.T) *server {
	t.Helper()
	provider, err := testcontainers.NewDockerProvider()
	require.NoError(t, err)
	defer provider.Close()
	host, err := provider.DaemonHost(t.Context())
	require.NoError(t, err)
	if host == "localhost" {
		host = "127.0.0.1" // ports are published there; ::1 may be tried first and lead nowhere
	}
	ip, err := netip.ParseAddr(host)
	require.NoErrorf(t, err, "the engine must be reached by an address, not by the name %q: set TESTCONTAINERS_HOST_OVERRIDE", host)
	docker, err := testcontainers.NewDockerClientWithOpts(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = docker.Close() })
	return &server{addr: netip.AddrPortFrom(ip, freePort(t)), docker: docker}
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", nil)
	require.NoError(t, err)
	defer listener.Close()
	addr, err := netip.ParseAddrPort(listener.Addr().String())
	require.NoError(t, err)
	return addr.Port()
}

// dsn returns the address as a DSN.
func (s *server) dsn() string {
	return fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s sslmode=disable",
		s.addr.Addr(), s.addr.Port(), user, password, database)
}

// run makes and starts the container. With the wait strategies of the
// postgres module it returns when the server is ready, without them at once.
func (s *server) run(t *testing.T, options ...testcontainers.ContainerCustomizer) {
	t.Helper()
	image := os.Getenv("RETRYPG_TEST_IMAGE")
	if image == "" {
		image = defaultImage
	}
	options = append([]testcontainers.ContainerCustomizer{
		postgres.WithUsername(user),
		postgres.WithPassword(password),
		postgres.WithDatabase(database),
		testcontainers.WithHostConfigModifier(func(host *container.HostConfig) {
			host.PortBindings = network.PortMap{
				network.MustParsePort(serverPort): {{HostIP: s.addr.Addr(), HostPort: fmt.Sprint(s.addr.Port())}},
			}
		}),
	}, options...)
	box, err := postgres.Run(t.Context(), image, options...)
	testcontainers.CleanupContainer(t, box)
	require.NoError(t, err)
	s.box = box
	t.Cleanup(func() {
		if t.Failed() {
			s.showLog(t)
		}
	})
}

// showLog prints what the server had to say.
func (s *server) showLog(t *testing.T) {
	t.Helper()
	result, err := s.docker.ContainerLogs(context.WithoutCancel(t.Context()), s.box.GetContainerID(),
		client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "40"})
	if err != nil {
		t.Logf("no server log: %v", err)
		return
	}
	defer result.Close()
	text := make([]byte, 16<<10)
	n, _ := result.Read(text)
	t.Logf("end of the server's log:\n%s", text[:n])
}

// stop shuts the server down in its fast way, which cuts all sessions.
func (s *server) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, s.box.Stop(t.Context(), nil))
}

// kill ends the server as a crash does, without a word to its clients.
func (s *server) kill(t *testing.T) {
	t.Helper()
	_, err := s.docker.ContainerKill(t.Context(), s.box.GetContainerID(), client.ContainerKillOptions{Signal: "KILL"})
	require.NoError(t, err)
	wait := s.docker.ContainerWait(t.Context(), s.box.GetContainerID(), client.ContainerWaitOptions{})
	select {
	case <-wait.Result:
	case err := <-wait.Error:
		require.NoError(t, err)
	}
}

// start starts a stopped container and returns before the server is ready.
func (s *server) start(t *testing.T) {
	t.Helper()
	_, err := s.docker.ContainerStart(t.Context(), s.box.GetContainerID(), client.ContainerStartOptions{})
	require.NoError(t, err)
}

// pause freezes all processes of the container; its connections stay open.
func (s *server) pause(t *testing.T) {
	t.Helper()
	_, err := s.docker.ContainerPause(t.Context(), s.box.GetContainerID(), client.ContainerPauseOptions{})
	require.NoError(t, err)
}

// unpause lets them go on.
func (s *server) unpause(t *testing.T) {
	t.Helper()
	_, err := s.docker.ContainerUnpause(t.Context(), s.box.GetContainerID(), client.ContainerUnpauseOptions{})
	require.NoError(t, err)
}
