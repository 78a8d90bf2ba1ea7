package retrypg

import (
	"fmt"
	"time"
)

// WithCommitCheck sets how the outcome of a COMMIT whose answer was lost is found out, for transactions whose
// TxOptions.Commit does not say it: XID, which is the default, Ledger or NoCheck.
func WithCommitCheck(c CommitCheck) Option {
	return optionFunc(func(s *settings) {
		if c < XID || c > NoCheck {
			s.errs = append(s.errs, fmt.Errorf("WithCommitCheck(%d): XID, Ledger or NoCheck is needed", c))
			return
		}
		s.commitCheck = c
	})
}

// WithLazyBegin says whether BEGIN is sent with the first statement of a transaction, in the same flight, which saves a round trip: the
// default, which retry_lazy_begin=off and WithLazyBegin(false) switch off. Then what BEGIN itself would have failed with is the error of the
// first statement, of which the server has run nothing; and a transaction without a statement is none: Commit and
// Rollback send nothing. Where a statement cannot carry BEGIN (a COPY or a batch of pgx, a transaction with a ledger, a hot standby, a pooler in
// between, a server that is not PostgreSQL, a connection of pgx that the caller has taken itself) it is sent by itself.
func WithLazyBegin(on bool) Option {
	return optionFunc(func(s *settings) { s.lazyBegin = lazyBeginIf(on) })
}

// WithLedgerTable sets the table of Ledger: a schema and a name, joined by a dot, which are taken as they are, without
// folding to lower case. Empty means DefaultLedgerTable. The table is made where it is missing, by
//
//	create table if not exists public.retrypg_ledger (
//	  begun bigint not null default (extract(epoch from transaction_timestamp()) * 1000000)::bigint,
//	  keep bigint not null,
//	  token uuid not null,
//	  primary key (begun, token)
//	)
//
// for which the role needs CREATE on the schema; else make it beforehand and grant INSERT, SELECT and DELETE.
func WithLedgerTable(name string) Option {
	return optionFunc(func(s *settings) { s.ledgerTable = name })
}

// WithLedgerRetention sets for how long tokens are kept in the ledger at least: a minute or more; zero means
// DefaultLedgerRetention. Programs that share a table may have different ones: each row has its own. Every thousandth transaction of a connector or pool deletes up to two thousand older ones after
// its COMMIT. A transaction that lasts longer than half of it is unknown when its COMMIT is lost and its token not found.
func WithLedgerRetention(d time.Duration) Option {
	return optionFunc(func(s *settings) { s.ledgerRetention = d })
}
