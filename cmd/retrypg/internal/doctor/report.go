package doctor

import (
	"encoding/json"
	"io"
)

// Level says how much a finding matters.
type Level string

// The levels, from the least to the most.
const (
	OK      Level = "ok"
	Note    Level = "note"    // good to know
	Warning Level = "warning" // hurts in some situations
	Problem Level = "problem" // hurts now, or in every outage
)

// rank orders levels.
func (l Level) rank() int {
	switch l {
	case Note:
		return 1
	case Warning:
		return 2
	case Problem:
		return 3
	}
	return 0
}

// Finding is one thing that was found.
type Finding struct {
	Level  Level  `json:"level"`
	Check  string `json:"check"` // what was looked at: a stable name, such as "reachable", or that of a setting
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"` // what to do
}

// Report is what was found. Its JSON form is described in docs/tool.md: fields may be added, and are not taken away.
type Report struct {
	Level     Level     `json:"level"` // the highest of all findings
	Hosts     []Host    `json:"hosts"` // in the order of the DSN
	Findings  []Finding `json:"findings"`
	Changes   []Change  `json:"changes"`       // to the DSN, that are suggested
	Suggested string    `json:"suggested_dsn"` // with them; a password is replaced
}

// Host is one host of the DSN.
type Host struct {
	Host      string    `json:"host"`
	Port      uint16    `json:"port,omitempty"`    // none for a Unix socket
	Address   string    `json:"address,omitempty"` // that was connected to
	Reachable bool      `json:"reachable"`
	Version   string    `json:"version,omitempty"` // of the server, such as "17.2"
	Kind      string    `json:"kind,omitempty"`    // of the server, such as "PostgreSQL" or "CockroachDB"
	Role      string    `json:"role,omitempty"`    // primary or standby
	Pooler    bool      `json:"pooler"`            // one is in between
	TLS       string    `json:"tls,omitempty"`     // version of the protocol; empty: none
	Commit    string    `json:"commit,omitempty"`  // how a lost COMMIT is found out: xid, ledger, off, or none: it is not
	Findings  []Finding `json:"findings"`
}

// Change is a key that the suggested DSN has and the given one has not, or has with another value.
type Change struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Why   string `json:"why"`
}

// add appends a finding.
func (h *Host) add(level Level, check, text, advice string) {
	h.Findings = append(h.Findings, Finding{level, check, text, advice})
}

func (r *Report) add(level Level, check, text, advice string) {
	r.Findings = append(r.Findings, Finding{level, check, text, advice})
}

// change suggests a key; the first suggestion for it counts.
func (r *Report) change(key, value, why string) {
	for _, c := range r.Changes {
		if c.Key == key {
			return
		}
	}
	r.Changes = append(r.Changes, Change{key, value, why})
}

// settle finds the highest level.
func (r *Report) settle() {
	r.Level = OK
	raise := func(findings []Finding) {
		for _, f := range findings {
			if f.Level.rank() > r.Level.rank() {
				r.Level = f.Level
			}
		}
	}
	raise(r.Findings)
	for _, h := range r.Hosts {
		raise(h.Findings)
	}
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // a DSN has & in it
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
