package doctor

import (
	"fmt"
	"slices"
	"time"

	"github.com/retrypg/retrypg"
)

// patient is when a host that does not answer costs too much of a failover. Chosen: twice retrypg's own bound, and its
// time for two lost packets.
const patient = 2 * retrypg.DefaultConnectTimeout

// hasty is when one lost packet ends an attempt: the kernel sends the first one again after a second.
const hasty = time.Second

// judgeDSN adds what is to be said of the DSN itself.
func (d *Doctor) judgeDSN(all []examined, r *Report) {
	switch timeout := d.target.cfg.ConnectTimeout; {
	case timeout == 0:
		r.add(OK, "connect_timeout", fmt.Sprintf("not given: retrypg bounds an attempt by %v", retrypg.DefaultConnectTimeout), "")
	case timeout > patient:
		r.add(Warning, "connect_timeout", fmt.Sprintf("%v: so long may a host cost that does not answer", timeout), "give connect_timeout=5")
		r.change("connect_timeout", "5", "a host that does not answer costs as long")
	case timeout <= hasty:
		r.add(Note, "connect_timeout", fmt.Sprintf("%v: one lost packet ends an attempt, as it is sent again after a second", timeout), "give connect_timeout=5")
	}
	d.judgeSSLMode(all, r)
}

// judgeSSLMode looks for a mode that goes on without encryption.
func (d *Doctor) judgeSSLMode(all []examined, r *Report) {
	optional, encrypted := false, true
	for i := range all {
		e := &all[i]
		if e.host.local() {
			continue
		}
		optional = optional || len(e.host.tls) > 1 && slices.Contains(e.host.tls, nil)
		encrypted = encrypted && e.facts != nil && e.facts.tls != nil
	}
	if !optional {
		return
	}
	advice := "give sslmode=verify-full, or sslmode=require"
	r.add(Note, "sslmode", "prefer or allow: a server, or who is in its place, that refuses TLS is talked to without", advice)
	if encrypted {
		r.change("sslmode", "require", "all hosts speak TLS")
	}
}
