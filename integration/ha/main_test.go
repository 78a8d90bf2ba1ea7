//go:build ha && linux

package ha_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// startLimit bounds the start of the cluster, which takes about 11 s.
const startLimit = 2 * time.Minute

// shared is the cluster of all tests: each waits until it is healthy.
var shared struct {
	once    sync.Once
	cluster *cluster
	err     error
}

func sharedCluster(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("it needs a cluster")
	}
	shared.once.Do(func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		if shared.cluster, shared.err = newCluster(ctx); shared.err == nil {
			t.Logf("the cluster is healthy after %v", time.Since(began).Round(100*time.Millisecond))
		}
	})
	if shared.err != nil {
		t.Fatalf("start a cluster: %v", shared.err)
	}
	return shared.cluster
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.cluster != nil && shared.err == nil {
		began := time.Now()
		if err := shared.cluster.close(); err != nil {
			fmt.Fprintf(os.Stderr, "close the cluster: %v\n", err)
			code = max(code, 1)
		}
		fmt.Printf("\nthe cluster has ended after %v\n", time.Since(began).Round(100*time.Millisecond))
	}
	report.print(os.Stdout)
	os.Exit(code)
}
