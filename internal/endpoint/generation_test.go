package endpoint

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAHostIsFencedOnceByAllConnectionsOfAGeneration(t *testing.T) {
	var hosts Hosts
	host := hosts.At("10.0.0.1:5432")
	for generation := range uint64(3) {
		require.Equal(t, generation, host.Generation())
		var fenced atomic.Int32
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if hosts.At("10.0.0.1:5432").Fence(generation) {
					fenced.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, fenced.Load())
	}
	require.Zero(t, hosts.At("10.0.0.2:5432").Generation(), "another host is not concerned")
}

func TestTheNumberOfHostsThatAreToldApartIsBounded(t *testing.T) {
	var hosts Hosts
	first := hosts.At("first")
	for i := range 2 * maxHosts {
		hosts.At(fmt.Sprint(i))
	}
	require.Len(t, hosts.byAddr, maxHosts)
	require.Same(t, first, hosts.At("first"))
	require.Same(t, hosts.At("another"), hosts.At("and another"))
}
