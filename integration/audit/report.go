package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Report is what an audit has found. An entry that is not as it was told is in one of the four lists.
type Report struct {
	Entries []Entry // all of which somebody was told, in the order in which that was

	Lost       []Entry // told ok, and not there
	Duplicated []Entry // there more than once
	Untrue     []Entry // told not applied, and there once
	Foreign    []Entry // there, and nobody was told of them
}

// Count returns how often each id is in what from says: a table with a column id, and a condition perhaps.
func Count(ctx context.Context, conn *pgx.Conn, from string, args ...any) (map[string]int, error) {
	rows, err := conn.Query(ctx, "select id::text, count(*)::int from "+from+" group by id", args...)
	if err != nil {
		return nil, err
	}
	there := make(map[string]int)
	var id string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { there[id] = n; return nil })
	return there, err
}

// CountAt returns what Count finds at a server.
func CountAt(ctx context.Context, t testing.TB, dsn, from string) map[string]int {
	t.Helper()
	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	there, err := Count(ctx, conn, from)
	require.NoError(t, err)
	return there
}

// Compare compares what was told with how often each entry is there. Of what is unknown it accepts that it is there and that
// it is not.
func (r *Record) Compare(there map[string]int) *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := &Report{Entries: slices.Clone(r.entries)}
	foreign := maps.Clone(there)
	for i := range report.Entries {
		e := &report.Entries[i]
		e.There = there[e.ID]
		delete(foreign, e.ID)
		switch {
		case e.There > 1:
			report.Duplicated = append(report.Duplicated, *e)
		case e.Told == OK && e.There == 0:
			report.Lost = append(report.Lost, *e)
		case e.Told == NotApplied && e.There == 1:
			report.Untrue = append(report.Untrue, *e)
		}
	}
	for id, n := range foreign {
		report.Foreign = append(report.Foreign, Entry{ID: id, There: n})
	}
	return report
}

// Of returns the entries of which that was told.
func (r *Report) Of(told Told) (entries []Entry) {
	for _, e := range r.Entries {
		if e.Told == told {
			entries = append(entries, e)
		}
	}
	return entries
}

// Errors returns all errors that callers were told.
func (r *Report) Errors() (errs []error) {
	for _, e := range r.Entries {
		if e.Err != nil {
			errs = append(errs, e.Err)
		}
	}
	return errs
}

// Wrong returns what is not as it was told.
func (r *Report) Wrong() []Entry { return slices.Concat(r.Lost, r.Duplicated, r.Untrue, r.Foreign) }

// Check logs what was told, and fails the test if it is not true.
func (r *Report) Check(t testing.TB) {
	t.Helper()
	t.Log(r)
	wrong := r.Wrong()
	if len(wrong) == 0 {
		return
	}
	errs := r.Errors()
	for _, err := range errs[:min(len(errs), 50)] {
		t.Log(err)
	}
	var text strings.Builder
	for _, e := range wrong[:min(len(wrong), 30)] {
		_, _ = fmt.Fprintln(&text, e)
	}
	t.Errorf("not as told: %d lost, %d duplicated, %d untrue, %d foreign\n%s",
		len(r.Lost), len(r.Duplicated), len(r.Untrue), len(r.Foreign), text.String())
}

func (r *Report) String() string {
	there := 0
	unknown := r.Of(Unknown)
	for _, e := range unknown {
		there += e.There
	}
	return fmt.Sprintf("told: %d ok, %d not applied, %d unknown (of which %d are there)",
		len(r.Of(OK)), len(r.Of(NotApplied)), len(unknown), there)
}
