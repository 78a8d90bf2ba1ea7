package classify

import (
	"fmt"
	"io"
	"strings"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/terminal"
)

// healing and proving explain the words of retrypg.Retry and retrypg.Outcome.
var (
	healing = map[string]string{
		"never":       "repeating gives the same error, or must not happen before the outcome is known",
		"statement":   "the same statement works when it is sent again",
		"transaction": "the transaction may succeed when it is run again from BEGIN",
		"reconnect":   "this connection is finished; another one can be had at once",
		"wait":        "the server takes no connections now, and may do so later",
		"failover":    "this server has the wrong role or never becomes ready: another one is needed",
	}
	proving = map[string]string{
		"unknown":     "it proves nothing: the work may have been applied",
		"not_started": "the server did not begin the work",
		"rolled_back": "the server rolled the work back",
		"committed":   "the work is applied although an error was returned",
	}
)

// indent is where the second column begins.
const indent = 13

// Write writes the result for people.
func (r *Result) Write(w io.Writer, look terminal.Look) error {
	var b strings.Builder
	field := func(label, text string) {
		if text == "" {
			return
		}
		lines := terminal.Wrap(text, look.Columns()-indent)
		for i, line := range lines {
			if i > 0 {
				label = ""
			}
			fmt.Fprintf(&b, "%s%s\n", look.Dim(fmt.Sprintf("  %-*s", indent-2, label)), line)
		}
	}
	b.WriteString(look.Bold(r.title()) + "\n")
	usual := r.Verdicts[0]
	field("class", r.Class)
	field("as", usual.As)
	field("retry", usual.Retry+": "+healing[usual.Retry])
	field("outcome", usual.Outcome+": "+proving[usual.Outcome])
	if usual.Reason != r.Condition {
		field("reason", usual.Reason)
	}
	field("why", r.Why)
	usual.Actions.write(field)
	label := "otherwise"
	for _, v := range r.Verdicts[1:] {
		text := v.As + ": " + v.Retry + ", " + v.Outcome
		if v.Reason != r.Condition && v.Reason != usual.Reason {
			text += " (" + v.Reason + ")"
		}
		field(label, text)
		label = ""
	}
	field("note", r.Note)
	if len(r.Nearest) > 0 {
		field("nearest", strings.Join(r.Nearest, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (a Actions) write(field func(label, text string)) {
	for _, line := range []struct {
		label  string
		action *Action
	}{{"connecting", a.Connecting}, {"statement", a.Statement}, {"WithTx", a.Transaction}, {"COMMIT", a.Commit}} {
		if line.action != nil {
			field(line.label, line.action.Text)
		}
	}
}

// title names what was found.
func (r *Result) title() string {
	if r.SQLState == "" {
		return r.Input
	}
	title := r.SQLState
	if r.Condition != "" {
		title += " " + r.Condition
	}
	return title
}
