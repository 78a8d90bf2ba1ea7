// Package doctor connects to each host of a DSN and reports what retrypg would do there: who the server is and which role
// it has, whether a pooler is in between, whether a lost COMMIT can be found out, and which settings of server and DSN
// would hurt. It reads only, in one session for each host.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg"
)

// Doctor examines one target.
type Doctor struct {
	target  *Target
	prepare func(*pgconn.Config) // changes what is connected with, in tests; may be nil
}

// New returns a Doctor for a target.
func New(t *Target) *Doctor { return &Doctor{target: t} }

// examined is a host with what it said.
type examined struct {
	host   hostConfig
	report Host
	facts  *facts // nil: it was not reached
	err    error  // why not
}

// Examine asks all hosts at the same time. It blocks for at most twice the connect_timeout (5 s each where there is none),
// or until ctx is done, and then returns what was found so far.
func (d *Doctor) Examine(ctx context.Context) *Report {
	all := make([]examined, len(d.target.hosts))
	var group sync.WaitGroup
	for i, h := range d.target.hosts {
		group.Go(func() { all[i] = d.examine(ctx, h) })
	}
	group.Wait()
	return d.judge(all)
}

// judge makes the report of what was found out.
func (d *Doctor) judge(all []examined) *Report {
	r := &Report{Hosts: []Host{}, Findings: []Finding{}, Changes: []Change{}}
	for i := range all {
		d.judgeHost(&all[i], len(all) > 1, r)
	}
	d.judgeHosts(all, r)
	d.judgeDSN(all, r)
	for i := range all {
		r.Hosts = append(r.Hosts, all[i].report)
	}
	r.Suggested = d.target.text.with(r.Changes)
	r.settle()
	return r
}

// examine connects to a host and asks it. Connecting has the time of connect_timeout for all ways to encrypt together, and
// so have the questions.
func (d *Doctor) examine(ctx context.Context, h hostConfig) examined {
	e := examined{host: h, report: Host{Host: h.name, Findings: []Finding{}}}
	if !h.socket() {
		e.report.Port = h.port
	}
	cfg := d.target.configFor(h)
	if d.prepare != nil {
		d.prepare(cfg)
	}
	connecting, cancel := context.WithTimeout(ctx, d.target.timeout())
	began := time.Now()
	pc, err := pgconn.ConnectConfig(connecting, cfg)
	cancel()
	if err != nil {
		e.err = err
		return e
	}
	took := time.Since(began)
	asking, cancel := context.WithTimeout(ctx, d.target.timeout())
	defer cancel()
	e.facts = ask(asking, pc, d.target.key("retry_ledger_table", retrypg.DefaultLedgerTable))
	e.facts.connected = took
	e.facts.verified = e.facts.tls != nil && verifies(h)
	_ = pc.Close(asking) // all was asked
	return e
}

// verifies reports whether the certificate of the host is looked at in each way to encrypt.
func verifies(h hostConfig) bool {
	for _, config := range h.tls {
		if config != nil && config.InsecureSkipVerify && config.VerifyPeerCertificate == nil && config.VerifyConnection == nil {
			return false
		}
	}
	return true
}

// judgeHost adds the findings about one host.
func (d *Doctor) judgeHost(e *examined, several bool, r *Report) {
	h := &e.report
	if e.facts == nil {
		d.judgeUnreachable(e, several)
		return
	}
	f := e.facts
	h.Reachable, h.Address = true, f.address
	var postgres bool
	h.Kind, h.Version, postgres = kindOf(f.version, f.number, f.settings)
	h.Role = "primary"
	if f.standby {
		h.Role = "standby"
	}
	if !f.answered("whether it is a standby") {
		h.Role = ""
	}
	h.add(OK, "reachable", fmt.Sprintf("connects in %v", f.connected.Round(time.Millisecond)), "")
	d.judgeTLS(e)
	d.judgePooler(e, r)
	d.judgeCommit(e, postgres, r)
	d.judgeSettings(e)
	d.judgeVanished(e, r)
	d.judgeConnections(e)
	for _, u := range f.unanswered {
		h.add(Note, "answers", "the server does not say "+u.question+": "+d.says(u.err), "")
	}
}

// says is the text of an error in one line, without what is known already, and without passwords.
func (d *Doctor) says(err error) string {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		err = connect.Unwrap()
	}
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); !slices.Contains(lines, line) { // once with TLS, and once without
			lines = append(lines, line)
		}
	}
	return d.target.redact(strings.Join(lines, "; "))
}
