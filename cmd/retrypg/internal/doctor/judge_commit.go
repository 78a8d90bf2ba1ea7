package doctor

import (
	"fmt"

	"github.com/retrypg/retrypg"
)

// judgeCommit says how the outcome of a COMMIT whose answer is lost would be found out.
func (d *Doctor) judgeCommit(e *examined, postgres bool, r *Report) {
	f, h := e.facts, &e.report
	check := d.target.key("retry_commit_check", retrypg.XID.String())
	if check == retrypg.NoCheck.String() {
		h.Commit = check
		h.add(Note, "commit", "retry_commit_check=off: a COMMIT whose answer is lost is ErrCommitUnknown",
			"leave the key out, or give TxOptions.Verify")
		return
	}
	if f.standby {
		h.add(OK, "commit", "transactions on a standby read only: there is nothing to find out about them", "")
		return
	}
	silent := d.silence(f, h.Kind, postgres)
	h.Commit = check
	switch {
	case check == retrypg.Ledger.String():
		d.judgeLedger(e)
	case silent != "":
		h.Commit = "none"
		h.add(Warning, "commit", "a COMMIT whose answer is lost stays unknown (ErrCommitUnknown), because "+silent,
			"give retry_commit_check=ledger, or TxOptions.Verify in the transactions that need to know")
		if postgres {
			r.change("retry_commit_check", retrypg.Ledger.String(), "the server does not say what became of a transaction id")
		}
	case f.pooled():
		h.add(OK, "commit", "a COMMIT whose answer is lost is found out by its transaction id; behind the pooler the server is asked who it is in each BEGIN", "")
	default:
		h.add(OK, "commit", "a COMMIT whose answer is lost is found out by its transaction id", "")
	}
	if f.settings["default_transaction_isolation"].value == "serializable" || f.settings["default_transaction_isolation"].value == "repeatable read" {
		h.add(Note, "default_transaction_isolation", fmt.Sprintf("it is %q: conflicts (40001) are to be expected, and a commit check costs a round trip of its own",
			f.settings["default_transaction_isolation"].value), "run transactions with WithTx")
	}
}

// silence says why a transaction id tells nothing here; empty if it does.
func (d *Doctor) silence(f *facts, kind string, postgres bool) string {
	switch {
	case !postgres:
		return kind + " has no transaction ids to ask for"
	case f.identityErr != nil:
		return "the server does not say who it is: " + d.says(f.identityErr)
	case f.statusErr != nil:
		return "the server does not say what became of a transaction: " + d.says(f.statusErr)
	}
	return ""
}

func (d *Doctor) judgeLedger(e *examined) {
	l, h := e.facts.ledger, &e.report
	switch {
	case l.table == "" || !e.facts.answered("the ledger table"):
		return // what was not answered is a finding of its own
	case l.exists && l.usable:
		h.add(OK, "commit", "a COMMIT whose answer is lost is found out by its token in "+l.table, "")
	case l.exists:
		h.add(Problem, "commit", "the role may not use the ledger table "+l.table+": transactions with the ledger fail",
			"grant insert, select, delete on "+l.table+" to it")
	case l.usable:
		h.add(Note, "commit", "the ledger table "+l.table+" is not there; the first transaction makes it", "")
	default:
		h.add(Problem, "commit", "the ledger table "+l.table+" is not there, and the role may not make it",
			"make it beforehand, as docs/commits.md has it, and grant insert, select, delete on it")
	}
}
