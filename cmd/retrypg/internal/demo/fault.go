package demo

import (
	"context"
	"fmt"
	"strings"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// startPrimary starts the server and lets connections reach it while it is still starting.
func (st *stage) startPrimary(ctx context.Context) error {
	if err := st.primary.StartAsync(); err != nil {
		return err
	}
	if err := st.setPrimaryAccept(pgtest.AcceptForward); err != nil {
		return err
	}
	return st.primary.Start(ctx)
}

// killPrimary kills the server with SIGKILL. New connections are refused, as by a host without the server.
func (st *stage) killPrimary(ctx context.Context) error {
	if err := st.primary.Kill(ctx); err != nil {
		return err
	}
	return st.setPrimaryAccept(pgtest.AcceptRefuse)
}

// killBackends has the server end up to n connections of each program, picked at random.
func (st *stage) killBackends(ctx context.Context, n int) error {
	return forEach(st.lanes, func(l *lane) error {
		killed, err := st.primary.TerminateBackends(ctx, fmt.Sprintf(
			"pid in (select pid from pg_stat_activity where datname = '%s' order by random() limit %d)", l.database, n))
		l.killed += killed
		return err
	})
}

// cutCommits cuts the connection of the next COMMIT of each program: after the server has run it, so that only the
// answer is lost, or before the server gets it. The program sees the same in both cases.
func (st *stage) cutCommits(after bool) {
	match, action := pgtest.Sending("commit"), pgtest.CutBefore(pgtest.Both, pgtest.RST)
	if after {
		match, action = pgtest.Tag("COMMIT"), pgtest.CutBefore(pgtest.Both, pgtest.FIN)
	}
	for _, l := range st.lanes {
		l.aim(l.first.OnMessage(match, action), after)
	}
}

// aimed is a rule that waits for the next COMMIT, or has met it.
type aimed struct {
	rule  *pgtest.Rule
	after bool
}

func (l *lane) aim(rule *pgtest.Rule, after bool) { l.aimed = append(l.aimed, aimed{rule, after}) }

// disarm takes the rules away that wait for a COMMIT, and counts those that met one.
func (st *stage) disarm() {
	for _, l := range st.lanes {
		for _, a := range l.aimed {
			a.rule.Remove()
			if a.after {
				l.cutAfter += a.rule.Fired()
			} else {
				l.cutBefore += a.rule.Fired()
			}
		}
		l.aimed = nil
	}
}

// perLane lists a number of each program, in the order in which they are shown.
func (st *stage) perLane(n func(*lane) int) string {
	var text []string
	for i, l := range st.lanes {
		text = append(text, fmt.Sprintf("%s %d", programKinds[i].name, n(l)))
	}
	return strings.Join(text, ", ")
}
