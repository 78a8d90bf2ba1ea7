// Package observability holds the tests of what can be watched: a real collector takes what retrypg demo and retrypg load
// send, a real Prometheus scrapes it, and every query of the dashboard and of the alerts in deploy/ is asked of that. They
// have the build tag observability, as Prometheus must be installed and the collector be built, which takes minutes the
// first time:
//
//	make test-observability
package observability
