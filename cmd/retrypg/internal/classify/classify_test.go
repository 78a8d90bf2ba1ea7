package classify

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
	"github.com/retrypg/retrypg/internal/sqlstate"
)

// find looks up what has one result.
func find(t *testing.T, input string, a Assumption) Result {
	t.Helper()
	results := Find(input, a)
	require.Len(t, results, 1, input)
	require.Equal(t, input, results[0].Input)
	require.NotEmpty(t, results[0].Verdicts)
	return results[0]
}

func TestEveryCodeIsKnownAndItsUsualVerdictIsThatOfTheTable(t *testing.T) {
	retries := []string{"never", "statement", "transaction", "reconnect", "wait", "failover"}
	outcomes := []string{"unknown", "not_started", "rolled_back", "committed"}
	for _, row := range sqlstate.Entries() {
		r := find(t, row.Code, Assumption{})
		require.True(t, r.Known)
		require.Equal(t, []string{row.Code, row.Name, row.Class, row.Why}, []string{r.SQLState, r.Condition, r.Class, r.Why})
		require.Equal(t, retries[row.Retry], r.Verdicts[0].Retry, row.Code)
		require.Equal(t, outcomes[row.Outcome], r.Verdicts[0].Outcome, row.Code)
		for _, other := range r.Verdicts[1:] {
			require.NotContains(t, []string{other.As}, r.Verdicts[0].As, row.Code)
		}
		require.Contains(t, codesOf(Find(row.Name, Assumption{})), row.Code, "by its name")
	}
}

func codesOf(results []Result) (codes []string) {
	for _, r := range results {
		codes = append(codes, r.SQLState)
	}
	return codes
}

func TestANameOfTwoCodesHasBoth(t *testing.T) {
	require.Equal(t, []string{"01004", "22001"}, codesOf(Find("String Data-Right truncation", Assumption{})))
}

func TestSeverityAndOriginChangeTheVerdict(t *testing.T) {
	verdict := func(code string, a Assumption) string {
		r := find(t, code, a)
		require.Len(t, r.Verdicts, 1)
		return r.Verdicts[0].Retry + " " + r.Verdicts[0].Outcome
	}
	require.Equal(t, "transaction rolled_back", verdict("40001", Assumption{Severity: "ERROR"}))
	require.Equal(t, "reconnect rolled_back", verdict("40001", Assumption{Severity: "FATAL"}))
	require.Equal(t, "reconnect unknown", verdict("40001", Assumption{Severity: "PANIC"}))
	require.Equal(t, "reconnect unknown", verdict("57P01", Assumption{Proxy: true}))
	require.Equal(t, "statement rolled_back", verdict("0A000", Assumption{Routine: "RevalidateCachedQuery"}))
}

func TestEachWayThatMakesADifferenceIsShown(t *testing.T) {
	var as []string
	for _, v := range find(t, "08006", Assumption{}).Verdicts {
		as = append(as, v.As)
	}
	require.Equal(t, []string{
		"FATAL of PostgreSQL",
		"ERROR of PostgreSQL, routine pgfdw_report_error",
		"ERROR of PostgreSQL, routine exec_stmt_raise",
	}, as)
}

func TestEveryRoutineOfTheListChangesSomeVerdict(t *testing.T) {
	changed := make(map[string]bool)
	for _, row := range sqlstate.Entries() {
		for _, v := range find(t, row.Code, Assumption{}).Verdicts[1:] {
			changed[v.Routine] = true
		}
	}
	for _, routine := range routines {
		require.True(t, changed[routine], routine)
	}
}

func TestACodeOfAnotherServerIsKnown(t *testing.T) {
	r := find(t, "xxa00", Assumption{})
	require.True(t, r.Known)
	require.Equal(t, "committed", r.Verdicts[0].Outcome)
	require.Nil(t, r.Verdicts[0].Actions.Transaction)
	require.Equal(t, Asks, r.Verdicts[0].Actions.Commit.Does)
}

func TestAnUnlistedCodeIsJudgedByItsClass(t *testing.T) {
	r := find(t, "40X99", Assumption{})
	require.True(t, r.Known)
	require.Empty(t, r.Condition)
	require.Contains(t, r.Note, "40000 transaction_rollback")
	require.Equal(t, "transaction", r.Verdicts[0].Retry)
	require.Equal(t, Again, r.Verdicts[0].Actions.Statement.Does)
}

func TestOfAnUnknownClassAndTextNothingIsClaimed(t *testing.T) {
	for _, input := range []string{"ZX001", "HELLO", "no money", "SQLSTATE ZX001"} {
		r := find(t, input, Assumption{})
		require.False(t, r.Known, input)
		require.Equal(t, "never", r.Verdicts[0].Retry)
		require.Equal(t, "unknown", r.Verdicts[0].Outcome)
		require.Equal(t, Asks, r.Verdicts[0].Actions.Commit.Does)
	}
}

func TestAMisspeltNameIsSuggested(t *testing.T) {
	for input, want := range map[string]string{
		"deadlok detected":       "deadlock_detected",
		"serialisation_failure":  "serialization_failure",
		"deadlock":               "deadlock_detected",
		"too_many_conections":    "too_many_connections",
		"unique_violatoin":       "unique_violation",
		"idle_in_transaction_se": "idle_in_transaction_session_timeout",
	} {
		r := find(t, input, Assumption{})
		require.False(t, r.Known)
		require.Equal(t, want, r.Nearest[0])
		require.LessOrEqual(t, len(r.Nearest), maxNearest)
	}
	require.Empty(t, find(t, "completely different", Assumption{}).Nearest)
	require.Empty(t, find(t, strings.Repeat("x", 5000), Assumption{}).Nearest)
}

func TestALineOfALogIsReadWithItsSeverity(t *testing.T) {
	for line, want := range map[string]string{
		`insert: ERROR: could not serialize access due to concurrent update (SQLSTATE 40001)`:                          "40001 ERROR transaction rolled_back",
		"failed to connect to `user=app database=shop`: server error: FATAL: sorry, too many clients (SQLSTATE 53300)": "53300 FATAL wait not_started",
		`psql: ERROR:  40P01: deadlock detected`:                                                                       "40P01 ERROR transaction rolled_back",
		`PDOException: SQLSTATE[40001]: Serialization failure`:                                                         "40001 ERROR transaction rolled_back",
		`ERROR: relation "x" does not exist (SQLSTATE 42P01)`:                                                          "42P01 ERROR never rolled_back",
		`FATAL: terminating connection due to administrator command (SQLSTATE 57P01)`:                                  "57P01 FATAL reconnect rolled_back",
		`FATAL: server login has been failing, try again later (server_login_retry) (SQLSTATE 08P01)`:                  "08P01 FATAL reconnect unknown",
		`x: PANIC: could not write to file "pg_wal/xlogtemp.1": No space left on device (SQLSTATE 53100)`:              "53100 PANIC reconnect unknown",
	} {
		r := find(t, line, Assumption{})
		v := r.Verdicts[0]
		require.Equal(t, want, strings.Join([]string{r.SQLState, v.Severity, v.Retry, v.Outcome}, " "), line)
	}
}

func TestWhereTheOriginDecidesALineOfALogHasBothVerdicts(t *testing.T) {
	r := find(t, `FATAL: terminating connection due to administrator command (SQLSTATE 57P01)`, Assumption{})
	require.Len(t, r.Verdicts, 2)
	require.Equal(t, "unknown", r.Verdicts[1].Outcome)
	require.Contains(t, r.Note, "PostgreSQL or a pooler")
	r = find(t, `FATAL: server login has been failing (SQLSTATE 08P01)`, Assumption{})
	require.Equal(t, "wait", r.Verdicts[1].Retry, "the message counts for a pooler's error")
}

func TestMessagesOfPoolersAndServersAreKnown(t *testing.T) {
	for message, want := range map[string]string{
		"server conn crashed?":                                    "08P01 reconnect unknown pooler lost its server connection",
		"FATAL: query_wait_timeout":                               "08P01 wait not_started pooler has no server connection",
		"pool is down":                                            "58000 wait unknown pooler is down",
		"all backend nodes are down, pgpool":                      "XX000 wait unknown pooler has no server",
		"odyssey: c1: client routing failed":                      "58000 never unknown pooler has no route",
		"sorry, too many clients already":                         "53300 wait not_started too_many_connections",
		"cached plan must not change result type":                 "0A000 statement rolled_back cached plan must not change result type",
		"cannot execute INSERT in a read-only transaction":        "25006 failover rolled_back read_only_sql_transaction",
		"cannot execute nextval() during recovery":                "25006 failover rolled_back server is in recovery",
		`duplicate key value violates unique constraint "t_pkey"`: "23505 never rolled_back unique_violation",
		`database "shop" does not exist`:                          "3D000 never not_started invalid_catalog_name",
	} {
		r := find(t, message, Assumption{})
		v := r.Verdicts[0]
		require.True(t, r.Known, message)
		require.Equal(t, want, strings.Join([]string{r.SQLState, v.Retry, v.Outcome, v.Reason}, " "), message)
		require.NotEmpty(t, r.Note)
	}
}

func TestEveryMessageOfTheListsIsOfAKnownCodeOrError(t *testing.T) {
	for _, m := range serverMessages {
		_, ok := sqlstate.Lookup(m.code)
		require.True(t, ok, m.code)
	}
	for _, g := range goErrors {
		r := find(t, g.text, Assumption{})
		require.True(t, r.Known, g.text)
		for _, v := range r.Verdicts {
			require.NotEqual(t, "not a database error", v.Reason, g.text)
		}
	}
}

func TestAnErrorOfTheConnectionIsJudgedByWhenItArose(t *testing.T) {
	for text, want := range map[string][]string{
		"unexpected EOF": {"reconnect unknown", "wait not_started"},
		"failed to connect to `user=app`: 127.0.0.1:5432: failed to receive message: unexpected EOF": {"wait not_started"},
		"dial tcp 127.0.0.1:5432: connect: connection refused":                                       {"wait not_started"},
		"write tcp 127.0.0.1:1: write: broken pipe":                                                  {"reconnect unknown"},
		"context canceled": {"never unknown", "never not_started"},
		"hostname resolving error: lookup db: no such host": {"wait not_started"},
		"retrypg: commit outcome unknown":                   {"never unknown"},
	} {
		var verdicts []string
		for _, v := range find(t, text, Assumption{}).Verdicts {
			verdicts = append(verdicts, v.Retry+" "+v.Outcome)
		}
		require.Equal(t, want, verdicts, text)
	}
}

func TestWhatArisesWhileConnectingCannotAnswerACommit(t *testing.T) {
	for _, input := range []string{"connection refused", "57P03", "28P01"} {
		a := find(t, input, Assumption{}).Verdicts[0].Actions
		require.NotNil(t, a.Connecting, input)
		require.Nil(t, a.Commit, input)
	}
	require.Equal(t, Actions{}, find(t, "01000", Assumption{}).Verdicts[0].Actions, "a warning is no error")
}

func TestTheTextFitsAStandardTerminalAndColoursDoNotChangeIt(t *testing.T) {
	inputs := []string{"unexpected EOF", "deadlok_detected", "XXA00"}
	for _, row := range sqlstate.Entries() {
		inputs = append(inputs, row.Code)
	}
	for _, input := range inputs {
		r := find(t, input, Assumption{})
		var plain, painted strings.Builder
		require.NoError(t, r.Write(&plain, terminal.Look{}))
		require.NoError(t, r.Write(&painted, terminal.Look{Color: true}))
		for _, line := range strings.Split(plain.String(), "\n") {
			require.LessOrEqual(t, len(line), 80, line)
		}
		bare := painted.String()
		for _, s := range terminal.Sequences() {
			bare = strings.ReplaceAll(bare, s, "")
		}
		require.NotEqual(t, painted.String(), bare)
		require.Equal(t, plain.String(), bare)
	}
}

func TestTheTextSaysWhatIsDone(t *testing.T) {
	var b strings.Builder
	r := find(t, "40P01", Assumption{})
	require.NoError(t, r.Write(&b, terminal.Look{}))
	require.Equal(t, `40P01 deadlock_detected
  class      Transaction Rollback
  as         ERROR of PostgreSQL
  retry      transaction: the transaction may succeed when it is run again from
             BEGIN
  outcome    rolled_back: the server rolled the work back
  why        Deadlock victim (DeadLockReport, deadlock.c; recovery deadlock,
             standby.c): docs advise a retry; CREATE INDEX CONCURRENTLY leaves
             an INVALID index and CALL/DO keep what they committed before.
  statement  sent again after a backoff
  WithTx     run again from BEGIN after a backoff
  COMMIT     not applied; WithTx runs it again
  otherwise  FATAL of PostgreSQL: reconnect, rolled_back
             FATAL of a pooler or proxy (no routine): reconnect, unknown
`, b.String())
}

func TestTheWordsOfTheLibraryAreAllExplained(t *testing.T) {
	for _, row := range sqlstate.Entries() {
		for _, v := range find(t, row.Code, Assumption{}).Verdicts {
			require.NotEmpty(t, healing[v.Retry], v.Retry)
			require.NotEmpty(t, proving[v.Outcome], v.Outcome)
		}
	}
	require.False(t, slices.Contains(routines, anyRoutine))
}
