package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Report is what the ledger says of the three programs. Its JSON form is what retrypg demo --json prints.
type Report struct {
	PostgreSQL string  `json:"postgresql"` // version of the servers
	Seconds    float64 `json:"seconds"`    // how long the load ran
	Workers    int     `json:"workers"`    // of each program
	Seed       uint64  `json:"seed"`
	Kept       bool    `json:"kept"` // Check found nothing
	Programs   []Row   `json:"programs"`

	Timeline *Timeline `json:"-"` // what was told when; nil where the report was not made by Run
}

// Row is the result of one program. All numbers are transfers where nothing else is said.
type Row struct {
	Name           string  `json:"name"`
	Asked          int     `json:"asked"`           // asked for
	OK             int     `json:"ok"`              // told: applied
	Errors         int     `json:"errors"`          // told: an error
	Unknown        int     `json:"unknown"`         // told: the outcome is not known
	UnknownApplied int     `json:"unknown_applied"` // of these, in the ledger
	Lost           int     `json:"lost"`            // told ok, and not in the ledger
	Duplicated     int     `json:"duplicated"`      // more than once in the ledger, whatever was told
	FalseErrors    int     `json:"false_errors"`    // told an error, and in the ledger
	AccountsOff    int     `json:"accounts_off"`    // accounts that have not what follows from what was told
	Balanced       bool    `json:"balanced"`        // every account has what the ledger says
	LongestGap     float64 `json:"longest_gap"`     // seconds without a transfer that succeeded
	GapIn          string  `json:"gap_in"`          // the phase in which that began
	Killed         int     `json:"killed"`          // connections that the server ended on demand
	CutBefore      int     `json:"commits_lost"`    // COMMITs that did not reach the server
	CutAfter       int     `json:"answers_lost"`    // COMMITs whose answer did not come back
	LastError      string  `json:"last_error,omitempty"`
}

// Check returns what retrypg did that it must not do, or nil. What the other programs did does not count.
func (r *Report) Check() []string {
	if len(r.Programs) <= retrypgProgram {
		return []string{"there is no result of retrypg"}
	}
	row := r.Programs[retrypgProgram]
	var broken []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{row.Lost, "transfers reported as done that are not in the ledger"},
		{row.Duplicated, "transfers applied more than once"},
		{row.FalseErrors, "transfers reported as failed that are in the ledger"},
	} {
		if c.n > 0 {
			broken = append(broken, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if !row.Balanced {
		broken = append(broken, "accounts that do not have what the ledger says")
	}
	if row.OK == 0 {
		broken = append(broken, "no transfer succeeded, so nothing was shown")
	}
	return broken
}

// Finding says in a sentence whether retrypg kept what it promises.
func (r *Report) Finding() string {
	if broken := r.Check(); len(broken) > 0 {
		return "retrypg broke its promise: " + strings.Join(broken, ", ")
	}
	return "retrypg lost nothing, duplicated nothing, and denied nothing that was applied."
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
