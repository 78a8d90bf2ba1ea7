package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// toldOf returns the row of a program that was asked for transfers of 10 from account 0 to account 1, told these errors
// of them, and left that ledger and these balances.
func toldOf(errs []error, times map[int64]int64, moved int64) Row {
	t := newTally()
	for _, err := range errs {
		asked := t.ask(transfer{from: 0, to: 1, amount: 10})
		t.tell(asked.id, err, time.Time{}, 0)
	}
	return t.compare(times, map[int64]int64{0: initialBalance - moved, 1: initialBalance + moved, 2: initialBalance})
}

func TestTheAuditTellsWhatTheLedgerContradicts(t *testing.T) {
	failed := errors.New("failed")
	unknown := fmt.Errorf("wrapped: %w", &retrypg.CommitUnknownError{Err: failed})
	for name, test := range map[string]struct {
		err   error
		times int64
		want  Row
	}{
		"ok and applied":        {nil, 1, Row{Asked: 1, OK: 1}},
		"ok and lost":           {nil, 0, Row{Asked: 1, OK: 1, Lost: 1, AccountsOff: 2}},
		"ok and twice":          {nil, 2, Row{Asked: 1, OK: 1, Duplicated: 1, AccountsOff: 2}},
		"error and not applied": {failed, 0, Row{Asked: 1, Errors: 1, LastError: "failed"}},
		"error and applied":     {failed, 1, Row{Asked: 1, Errors: 1, FalseErrors: 1, AccountsOff: 2, LastError: "failed"}},
		"error and three times": {failed, 3, Row{Asked: 1, Errors: 1, FalseErrors: 1, Duplicated: 1, AccountsOff: 2, LastError: "failed"}},
		"unknown, not applied":  {unknown, 0, Row{Asked: 1, Unknown: 1}},
		"unknown and applied":   {unknown, 1, Row{Asked: 1, Unknown: 1, UnknownApplied: 1}},
		"unknown and twice":     {unknown, 2, Row{Asked: 1, Unknown: 1, UnknownApplied: 1, Duplicated: 1, AccountsOff: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, toldOf([]error{test.err}, map[int64]int64{0: test.times}, 10*test.times))
		})
	}
}

// reportOf is a report in which retrypg has that row, and the others have broken everything.
func reportOf(row Row) *Report {
	row.Name = "retrypg"
	broken := Row{Asked: 123_456, OK: 123_456, Lost: 123_456, Duplicated: 123_456, FalseErrors: 123_456, AccountsOff: accounts}
	broken.Name = "pgx + loop"
	return &Report{Programs: []Row{{Name: "pgx", Errors: 5}, broken, row}}
}

func TestOnlyWhatRetrypgDidDecides(t *testing.T) {
	good := Row{Asked: 3, OK: 2, Unknown: 1, Balanced: true}
	require.Empty(t, reportOf(good).Check())
	for says, spoil := range map[string]func(*Row){
		"not in the ledger":    func(r *Row) { r.Lost = 1 },
		"more than once":       func(r *Row) { r.Duplicated = 1 },
		"reported as failed":   func(r *Row) { r.FalseErrors = 1 },
		"what the ledger says": func(r *Row) { r.Balanced = false },
		"nothing was shown":    func(r *Row) { r.OK = 0 },
	} {
		row := good
		spoil(&row)
		broken := reportOf(row).Check()
		require.Len(t, broken, 1)
		require.Contains(t, broken[0], says)
	}
	require.NotEmpty(t, (&Report{}).Check())
}

func TestTheTableFitsAStandardTerminal(t *testing.T) {
	var b strings.Builder
	report := reportOf(Row{OK: 1_234_567, Balanced: true, LongestGap: 123.4})
	require.NoError(t, report.Write(&b, terminal.Look{}))
	for _, line := range strings.Split(b.String(), "\n") {
		require.LessOrEqual(t, len(line), 80, line)
	}
	require.Contains(t, b.String(), "1,234,567")
	require.NotContains(t, b.String(), "\x1b")
}

func TestColoursDoNotMoveTheColumns(t *testing.T) {
	var with, without strings.Builder
	report := reportOf(Row{OK: 1, Balanced: true})
	require.NoError(t, report.Write(&without, terminal.Look{}))
	require.NoError(t, report.Write(&with, terminal.Look{Color: true}))
	plain := with.String()
	for _, s := range terminal.Sequences() {
		plain = strings.ReplaceAll(plain, s, "")
	}
	require.NotEqual(t, with.String(), plain)
	require.Equal(t, without.String(), plain)
}

func TestTheJSONHasTheNumbersOfTheTable(t *testing.T) {
	var b strings.Builder
	want := reportOf(Row{Asked: 9, OK: 7, Unknown: 2, UnknownApplied: 1, Balanced: true})
	require.NoError(t, want.WriteJSON(&b))
	var got Report
	require.NoError(t, json.Unmarshal([]byte(b.String()), &got))
	require.Equal(t, *want, got)
	require.Contains(t, b.String(), `"false_errors": 0`)
}

func TestTheLongestGapIsThatWithoutASuccess(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	tl := newTally()
	tl.begin(at(0))
	tl.enter("first")
	tell := func(err error, s int) { tl.tell(tl.ask(transfer{to: 1}).id, err, at(s), 0) }
	tell(nil, 1)
	tl.enter("second")
	tell(nil, 2)
	tell(errors.New("no"), 5)
	tl.enter("third")
	tell(nil, 6)
	tl.end(at(8))
	row := tl.compare(nil, nil)
	require.InDelta(t, 4, row.LongestGap, 0)
	require.Equal(t, "second", row.GapIn)
}
