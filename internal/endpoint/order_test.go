package endpoint

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type hostPort struct {
	name string
	port uint16
}

func sorted(o *Order, hosts ...hostPort) (names []string) {
	for _, h := range Sorted(o, hosts, func(h hostPort) (string, uint16) { return h.name, h.port }) {
		names = append(names, h.name)
	}
	return names
}

func TestServersAreTriedInTheOrderGiven(t *testing.T) {
	require.Equal(t, []string{"a", "b", "c"}, sorted(&Order{}, hostPort{"a", 1}, hostPort{"b", 1}, hostPort{"c", 1}))
}

func TestTheLastWinnerIsTriedFirst(t *testing.T) {
	var o Order
	o.Prefer("10.0.0.2:1")
	require.Equal(t, []string{"10.0.0.2", "10.0.0.1", "10.0.0.3"}, sorted(&o, hostPort{"10.0.0.1", 1}, hostPort{"10.0.0.2", 1}, hostPort{"10.0.0.3", 1}))
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2"}, sorted(&o, hostPort{"10.0.0.1", 1}, hostPort{"10.0.0.2", 2}), "another port is another server")
	o.Prefer("/run/.s.PGSQL.5432")
	require.Equal(t, []string{"/run", "10.0.0.1"}, sorted(&o, hostPort{"10.0.0.1", 1}, hostPort{"/run", 5432}))
	o.Prefer("")
	require.Equal(t, []string{"/run", "10.0.0.1"}, sorted(&o, hostPort{"10.0.0.1", 1}, hostPort{"/run", 5432}))
}

func TestANameIsKnownByItsAddresses(t *testing.T) {
	var o Order
	require.False(t, o.Several("two"))
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2"}, o.Resolved("two", 1, []string{"10.0.0.1", "10.0.0.2"}))
	require.True(t, o.Several("two"))
	o.Prefer("10.0.0.2:1")
	require.Equal(t, []string{"10.0.0.2", "10.0.0.1"}, o.Resolved("two", 1, []string{"10.0.0.1", "10.0.0.2"}))
	require.Equal(t, []string{"two", "one"}, sorted(&o, hostPort{"one", 1}, hostPort{"two", 1}))
	require.Equal(t, []string{"10.0.0.1:7", "10.0.0.1:8"}, o.Resolved("ports", 1, []string{"10.0.0.1:7", "10.0.0.1:8"}))
}

func TestAServerOfNoUseIsTriedLastForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Order
		o.Prefer("10.0.0.1:1")
		o.Avoid("10.0.0.1:1")
		hosts := []hostPort{{"10.0.0.1", 1}, {"10.0.0.2", 1}}
		require.Equal(t, []string{"10.0.0.2", "10.0.0.1"}, sorted(&o, hosts...))
		time.Sleep(avoidFor)
		require.Equal(t, []string{"10.0.0.1", "10.0.0.2"}, sorted(&o, hosts...))
		o.Avoid("10.0.0.1:1")
		o.Prefer("10.0.0.1:1")
		require.Equal(t, []string{"10.0.0.1", "10.0.0.2"}, sorted(&o, hosts...), "somebody has connected to it")
	})
}

func TestARandomOrderIsAnotherOneEachTimeAndLeavesOutNone(t *testing.T) {
	o := Order{Random: true}
	o.Prefer("10.0.0.1:1")
	o.Avoid("10.0.0.3:1")
	seen := make(map[string]bool)
	for range 200 {
		names := sorted(&o, hostPort{"10.0.0.1", 1}, hostPort{"10.0.0.2", 1}, hostPort{"10.0.0.3", 1})
		require.ElementsMatch(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, names)
		require.Equal(t, "10.0.0.3", names[2], "what is to be avoided is the last also then")
		seen[names[0]] = true
	}
	require.Len(t, seen, 2)
}

func TestWhatIsAvoidedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Order
		for i := range 3 * maxHosts {
			o.Avoid(WithPort("10.0.0.1", uint16(i)))
			o.Resolved(WithPort("name", uint16(i)), 1, []string{"10.0.0.1"})
		}
		require.LessOrEqual(t, len(o.avoided), maxHosts)
		require.LessOrEqual(t, len(o.names), maxHosts)
		time.Sleep(avoidFor + time.Second)
		o.Avoid("10.0.0.9:1")
		require.Len(t, o.avoided, 1, "what is over makes room")
	})
}
