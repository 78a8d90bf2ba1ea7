// Package retrypg is a PostgreSQL driver for database/sql and a pool for pgx that wait for a server that is away, replace
// connections that have died, and run again what was certainly not applied, and nothing else. It is built on pgx v5.
//
//	db, err := sql.Open("retrypg", dsn)          // or OpenDB, NewConnector
//	pool, err := retrypg.NewPool(ctx, dsn)       // or NewPoolWithConfig, ConfigurePool
//	err = retrypg.WithTx(ctx, db, retrypg.TxOptions{}, func(ctx context.Context, tx *sql.Tx) error { ... })
//
// # What is repeated
//
// Connecting. A connection attempt is repeated for as long as waiting can heal its failure: the server is not there,
// starts up, shuts down, recovers, is full, has the wrong role for target_session_attrs, or its name cannot be resolved.
// One caller in the process tries for all handles that lead to the same hosts with the same rights and settings of the
// connection; the others wait for its success, each within its own context.
// Of several hosts the one that was last connected to is tried first, and one that says nothing for 250 ms is left for another
// that answers. See [Connector.Connect].
//
// BEGIN, Prepare, and a statement of which nothing was sent. They have had no effect, so they go to another connection. BEGIN is sent with
// the first statement of its transaction: one that may be sent twice, or of which nothing was sent, goes with it.
//
// A statement outside of a transaction that the server has answered with an error by which it was rolled back: a
// serialization failure or deadlock (SQLSTATE class 40; after a backoff), a stale cached plan or a missing prepared
// statement (at once, twice at most), and, over another connection, that its server process is terminated (57P01;
// Exec without arguments only, where the protocol shows that nothing was committed) or that its server is a standby now (25006 and its like), each
// up to retry_max_attempts. It must be one plain SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES or TABLE, and
// must not have delivered a row. It is judged by the text that it was given: the name of a prepared statement must not
// read like a statement ("select x"), as pgx sends what was prepared under it.
//
// A transaction of [WithTx] and its kin, from its BEGIN, when the server has certainly not applied it and another run can
// succeed: after a conflict, a lost connection before COMMIT, a restart, a failover.
//
// # What is never repeated
//
//   - A statement that may have run: it was sent, and the connection broke before the answer. With a context of [Idempotent]
//     it is, whatever its text.
//   - A transaction whose COMMIT was sent, unless it was certainly not applied: the answer says so or, without an answer,
//     the server that is asked afterwards. Where it cannot tell, the error matches [ErrCommitUnknown].
//   - A query that has delivered a row.
//   - CALL, DO, COPY, anything CONCURRENTLY, VACUUM and other utility commands, text with more than one statement, and any
//     text of which that cannot be told for certain: parts of these may have been committed. Nor a statement with a
//     pgx.QueryRewriter other than named arguments: it sends another text.
//   - A statement inside of a transaction: only the whole transaction can be run again.
//   - What the caller's context ended, and what it marks with [NoRetry].
//   - What a second try cannot heal: a wrong password, a missing database or privilege, refused or invalid TLS, a violated
//     constraint, wrong SQL, and every error that is not of the database.
//
// The evidence is what was handed to the kernel on that connection, the SQLSTATE with its severity and origin, the command
// tag of COMMIT, and ReadyForQuery. pgconn.SafeToRetry is never evidence: pgx 5.9 to 5.12 return true for statements that
// ran. [Classify] shows the judgement of any error.
//
// # In which order the limits apply
//
// From the outside to the inside:
//
//  1. The context of the caller. There is no wait that could not end before its deadline: the call ends at once instead,
//     with an error that matches context.DeadlineExceeded and the last error of the server. Where the context of a
//     connection attempt has no deadline, retry_connect_max_elapsed takes its place: database/sql opens connections for
//     waiting callers without one.
//  2. The loop over attempts, bounded by retry_max_attempts and retry_max_elapsed. It does not bound connecting, which is
//     bounded by time alone.
//  3. The breaker, if there is one. It is asked before each connection attempt, each statement outside of a transaction and
//     each BEGIN of database/sql. Its refusal is final for the loop: it is a *breaker.OpenError, which says when to come
//     back. Only failures of connections count against it. So an open breaker also ends the waiting for a server at
//     start-up: call [WaitReady] first, which it does not end.
//  4. The budget, before the wait, and only where another attempt would follow. What is charged are runs of transactions
//     that follow a lost connection or a server that was away. Conflicts are not: they say nothing about the health of the
//     server. Neither is connecting, where one caller tries for all.
//  5. The wait, and the attempt, with its span, otelsql's, and pgx below it. Transactions and the calls of a [Pool] hold no
//     connection while they wait; a single statement of database/sql keeps the one that it has.
//
// # Servers that change
//
// A server that turns out to be a standby, by the error of a statement that only a primary can run, is fenced: all connections to
// it are dropped, each before it is used again. Where it has not said of itself what it is, as PostgreSQL 14 and later do
// unless a pooler is in between, it is asked: a READ ONLY transaction and a role with default_transaction_read_only meet the same error on a primary,
// and there it is the caller's. So it is with target_session_attrs=standby, read-only or prefer-standby. A handle that takes any server fences a
// standby that it meets again once in 30 s at most. Fenced, too, is one that falls silent, where the DSN has several hosts and
// target_session_attrs=read-write or primary: when an answer is 500 ms overdue the server is asked for a sign of life; when
// it gives none, another host is found to be the primary, and it gives none within 500 ms from then, the statements that wait
// for it are ended. A server that works on a long statement answers, and is asked each time when half of its time has passed again, every 5 s at last.
//
// A server that nobody else can take the place of is waited for. A dead peer is found by the TCP options of every connection
// within about 11 s. They do not find a process that is stopped on a machine that lives: there only a deadline helps, or
// retry_statement_timeout.
//
// [Connector.Reconfigure] and [Pool.Reconfigure] change when something is tried again while the handle is in use.
//
// # Errors
//
// What the driver returns for statements, BEGIN and COMMIT is the error of pgx, not wrapped, also after several attempts:
// code that asserts *pgconn.PgError works as on plain pgx. Wrapped is only what could not be sent at all
// where database/sql has no other connection, the third time or on a pinned sql.Conn; what retry_statement_timeout ended; a COMMIT
// whose answer was lost and that was found not to be applied; and the error of an [Idempotent] statement of which an earlier
// attempt may have taken effect. Where no other connection could be made, the error is that of connecting. Errors of our own are [*CommitUnknownError], [ErrTxEnded] of the
// Commit that follows a ROLLBACK sent as text, *breaker.OpenError, and texts that begin with "retrypg:" for mistakes in the
// use, such as a connection that is busy with open rows. In a transaction and on a pinned sql.Conn, driver.ErrBadConn never
// stands in place of the reason.
//
// Connect, WaitReady and WithTx say more: an [*ExhaustedError] has the number of attempts, the time they took, why there
// was no further one, and unwraps to the last error. Where the first attempt fails and cannot be repeated, Connect and
// WithTx return its error as it is, and WaitReady wraps it.
//
// No error, span, metric or log line of this package holds a password, SQL text or arguments; what the server itself says
// in an error is passed on.
//
// # Transactions
//
// [WithTx] returns nil if and only if the transaction committed, once. Its error says that it was not applied, unless it
// matches [ErrCommitUnknown] (COMMIT was sent, its answer lost, and the server cannot tell) or [ErrTxEnded] (the closure
// ended it itself, by Commit or Rollback or by such a statement, also if it has begun another, or failed after its [LastStatement]). The closure may run several times: it must work on its transaction only, set what it
// captures anew each time, and wrap errors of statements with %w if at all. What no rollback takes back is repeated with
// it: values of sequences, session advisory locks, calls to other services. After ErrCommitUnknown the server may still be
// committing for a while: a look for the effect that comes at once may miss it.
//
// # Lost COMMITs
//
// When the answer to COMMIT is lost, or the context ends while it is awaited, a primary is asked what became of the
// transaction, over one connection for all that are asked about at the time, beyond the limit of the pool. That takes
// milliseconds where the server is there. It is bounded by the context, but 3 s are taken also where that ends sooner, and by
// retry_commit_check_max_elapsed where it has no deadline. COMMIT of database/sql and of a [Pool] then returns nil, or an
// error of which [Classify] says OutcomeRolledBack, or a [*CommitUnknownError]; [WithTx] runs again what was not applied.
//
// With [XID], the default, the id of a read-write transaction is read with its first query, in the same flight, and with each new
// connection who its server is. The id of a transaction without a query (DDL, COPY) is read before its COMMIT, in a round
// trip of its own. pg_xact_status is believed only if the cluster, its timeline and its crash epoch are the
// same as then: after a crash PostgreSQL hands out ids again that were not flushed. So "committed" after a crash or a
// failover is unknown. With [Ledger] a token is written into a table, and nothing is unknown once a primary answers.
// A transaction that is in progress although its connection is gone is waited for, and its server process terminated if it
// is idle for 250 ms, as its COMMIT never arrived, or busy for half of the time that there is; not while it waits for a
// synchronous standby. COMMIT is sent so that the end of its context does not cancel that wait.
//
// A transaction declared READ ONLY carries no question and is never unknown.
//
// Connections that were not dialled by us (of a pool without ConfigurePool, a *pgx.Conn) are asked about in the same way, but
// pgx sends requests to cancel for them: a context that ends can end the wait for a synchronous standby.
//
// The transaction of a handle that is not ours (another driver, a pool without ConfigurePool) is run with the default
// settings and a retry budget for each *sql.DB and *pgxpool.Pool; single connections of others share one budget.
//
// # DSN keys
//
// A DSN is all that pgx reads (URL or keyword/value, service files, several hosts, PG* variables) with these keys, shown
// with their defaults. They are not sent to the server. A wrong key or value of ours is a [*DSNError] that names what is
// allowed and the nearest right one. Options win over the DSN. A URL writes them as ?retry_max_attempts=5&retry_jitter=none.
//
// connect_timeout is pgx's own; where it is not given, or 0, one attempt at one host is bounded by 5 s.
//
// Every key that begins with retry_ or breaker_ is taken for ours. YugabyteDB has server parameters of such names
// (retry_max_backoff, retry_min_backoff, retry_backoff_multiplier): give them as options='-c retry_max_backoff=1s'.
//
//	retry_max_attempts=10
//	    attempts of one statement or transaction in all, the first included
//	    a whole number from 1 to 1000000; 1: no retry
//	retry_max_elapsed=off
//	    time in which attempts of one statement or transaction may begin; off: the context and the attempts
//	    bound it
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds, or "off"
//	retry_initial_delay=5ms
//	    ceiling of the wait before the first retry
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds
//	retry_max_delay=1s
//	    ceiling of every wait
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds, not less than retry_initial_delay
//	retry_multiplier=2
//	    factor from the ceiling of one wait to that of the next
//	    a number from 1 to 1000
//	retry_jitter=full
//	    how a wait is drawn below its ceiling
//	    none, full, equal, decorrelated, proportional; proportional takes a factor, as in "proportional:0.25"
//	retry_connect_max_elapsed=1m0s
//	    how long connecting waits for a server where the context has no deadline
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds
//	retry_statement_timeout=off
//	    bound on a statement, to its last row, whose context has no deadline
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds, or "off"
//	retry_ping_after=1s
//	    idle time after which a pooled connection is pinged when it is taken; off: never
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds, or "off"
//	load_balance_hosts=disable
//	    whether the hosts, and the addresses of each, are tried in random order, as by libpq; else the last one
//	    that worked goes first
//	    disable, random
//	retry_lazy_begin=on
//	    whether BEGIN is sent with the first statement of a transaction, which saves a round trip
//	    on, off
//	retry_commit_check=xid
//	    how the outcome of a COMMIT whose answer was lost is found out
//	    xid, ledger, off
//	retry_commit_check_max_elapsed=30s
//	    how long a lost COMMIT is asked about where the context has no deadline, at least 3s
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds
//	retry_ledger_table=public.retrypg_ledger
//	    table of the tokens of retry_commit_check=ledger
//	    schema and table, as in "public.retrypg_ledger"
//	retry_ledger_retention=1h0m0s
//	    how long tokens are kept there
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds, at least 1m0s
//	retry_budget=on
//	    whether retries are held to a share of the successes
//	    on, off
//	retry_budget_ratio=0.1
//	    retries that each success pays for
//	    a number from 0.001 to 1
//	retry_budget_min_per_second=3
//	    retries per second that need no success
//	    a number from 0.001 to 1000000
//	retry_budget_burst=100
//	    retries that can be saved up, and that there are at the start
//	    a whole number from 1 to 1000000
//	retry_contention_control=on
//	    whether transactions of `WithTx` that are in each other's way are admitted in turn
//	    on, off
//	retry_escalate_after=4
//	    conflicts of one transaction after which its further attempts run alone
//	    a whole number from 1 to 1000000
//	retry_advisory_locks=off
//	    whether transactions hold PostgreSQL's advisory locks, too, to exclude those of other processes: those
//	    that run alone, and those with keys while others are in their way; not behind poolers that pool by
//	    transaction
//	    on, off
//	breaker_failures=off
//	    connection failures in a row that open the circuit breaker; off: no breaker
//	    a whole number from 1 to 10000, or "off" (or 0)
//	breaker_window=10s
//	    longest time from the first to the last of these failures
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds
//	breaker_open_for=5s
//	    how long an open breaker refuses before it lets a probe through
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds
//	breaker_probes=1
//	    probes that a half-open breaker lets through at the same time
//	    a whole number from 1 to 10000
//	breaker_probe_lease=10s
//	    how long a probe may stay without a result before another takes its place
//	    a duration from 1us to 24h such as "250ms" or "30s", or whole seconds
//	retry_otelsql=spans
//	    when otelsql is in the path of a connection of database/sql: where spans are recorded; or always, for
//	    its metrics of each call; or never
//	    spans, always, never
//	tcp_user_timeout=10s
//	    how long sent data may stay unacknowledged before the connection is given up (Linux); off: as the system
//	    has it. It is the client's socket, as in libpq; for the server's use `options`
//	    a duration from 1ms to 2147483647ms, or whole milliseconds, or "off" (or 0)
//	tcp_keepalive_idle=5s   (also keepalives_idle)
//	    silence before the first keepalive probe; off: no keepalive
//	    a duration from 1s to 32767s, or whole seconds, or "off"
//	tcp_keepalive_interval=2s   (also keepalives_interval)
//	    time between two keepalive probes
//	    a duration from 1s to 32767s, or whole seconds
//	tcp_keepalive_count=3   (also keepalives_count)
//	    unanswered keepalive probes that end the connection
//	    a whole number from 1 to 127
//	tcp_server_side=off
//	    whether the server is asked for the same TCP options, and for client_connection_check_interval, so that
//	    it gives the locks of a client that vanished back; a pooler that refuses them is connected to without
//	    on, off
//	keepalives=1
//	    libpq's switch: 0 is tcp_keepalive_idle=off
//	    1 (or on), 0 (or off)
//
// # Telemetry
//
// Spans and metrics go to OpenTelemetry's global providers, or to those of [WithTracerProvider] and [WithMeterProvider];
// package metrics lists them. Nothing is recorded, and nothing allocated for it, while no provider is installed. [WithHooks]
// and [WithLogger] tell about single events. Metrics add one measurement to a statement that succeeds, and no allocation; spans add
// otelsql to the connections that are made while there are some ([WithOTelSQLUse]).
//
// # Concurrency
//
// Drivers, connectors, pools, policies, budgets and breakers are safe for concurrent use. A [Conn], and a transaction with
// the calls of WithTx nested in it, are for one goroutine at a time. Callbacks run on the goroutine of the operation that
// they tell of, never under a lock, and their panics go on through it; but those about connecting run where the connection is made,
// which in pgxpool is a goroutine of its own, and those about a silent server on the one that watches over the connections: from a
// panic there nobody can recover. The package starts no goroutine that outlives its
// call, but for the one that watches over connections to several hosts, which ends with the last of them or with Close, and with it what it asks servers. pgx
// does: it closes a connection on which a statement was cut short on a goroutine of its own, for up to 15 s.
//
// # More
//
// The README has the tables of metrics, errors and SQLSTATEs, and the use with containers. [docs/recipes.md] shows the use
// with pools, GORM, sqlx, bun, ent, sqlc and River, [docs/migration.md] how to come from plain pgx and others, and
// [docs/faq.md] answers questions. How it works inside is in [docs/architecture.md].
//
// [docs/recipes.md]: https://github.com/retrypg/retrypg/blob/main/docs/recipes.md
// [docs/migration.md]: https://github.com/retrypg/retrypg/blob/main/docs/migration.md
// [docs/faq.md]: https://github.com/retrypg/retrypg/blob/main/docs/faq.md
// [docs/architecture.md]: https://github.com/retrypg/retrypg/blob/main/docs/architecture.md
package retrypg
