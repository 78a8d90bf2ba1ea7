package connect_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/retrypg/retrypg"
	"github.com/retrypg/retrypg/internal/pgtest"
)

// secret is in the statements and arguments of these tests, and must be in no span.
const secret = "top_secret"

// tracer records spans of one test.
type tracer struct {
	recorder *tracetest.SpanRecorder
	provider *sdktrace.TracerProvider
}

func newTracer(t *testing.T) *tracer {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return &tracer{recorder: recorder, provider: provider}
}

func (r *tracer) option() retrypg.Option { return retrypg.WithTracerProvider(r.provider) }

// trace runs f under a span of the caller and returns what was recorded, as a tree whose root is that span. It requires
// that every span was ended, is in the tree, and tells no secret.
func (r *tracer) trace(t *testing.T, f func(ctx context.Context)) *node {
	t.Helper()
	r.recorder.Reset()
	ctx, span := r.provider.Tracer("caller").Start(within(t), "caller")
	f(ctx)
	span.End()
	require.Len(t, r.recorder.Ended(), len(r.recorder.Started()), "a span was not ended")
	nodes := make(map[trace.SpanID]*node)
	for _, s := range r.recorder.Ended() {
		nodes[s.SpanContext().SpanID()] = &node{ReadOnlySpan: s}
		require.NotContains(t, fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status(), s.Links()), secret)
		require.NotContains(t, fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status(), s.Links()), password)
	}
	for _, s := range r.recorder.Started() { // in the order in which they began
		if s.Parent().IsValid() {
			parent := nodes[s.Parent().SpanID()]
			require.NotNil(t, parent, "the span %s has a parent that was not recorded", s.Name())
			parent.children = append(parent.children, nodes[s.SpanContext().SpanID()])
			continue
		}
		require.Equal(t, "caller", s.Name(), "the span is outside of the caller's")
	}
	return nodes[span.SpanContext().SpanID()]
}

// began returns how many spans of that name have begun.
func (r *tracer) began(name string) (n int) {
	for _, s := range r.recorder.Started() {
		if s.Name() == name {
			n++
		}
	}
	return n
}

type node struct {
	sdktrace.ReadOnlySpan
	children []*node
}

// String shows the tree by names: "caller(retrypg.statement(retrypg.attempt))".
func (n *node) String() string {
	if len(n.children) == 0 {
		return n.Name()
	}
	names := make([]string, len(n.children))
	for i, c := range n.children {
		names[i] = c.String()
	}
	return n.Name() + "(" + strings.Join(names, " ") + ")"
}

// at returns the first span of that name in the tree.
func (n *node) at(name string) *node {
	if n.Name() == name {
		return n
	}
	for _, c := range n.children {
		if f := c.at(name); f != nil {
			return f
		}
	}
	return nil
}

// all returns the spans of that name in the tree.
func (n *node) all(name string) (found []*node) {
	if n.Name() == name {
		found = append(found, n)
	}
	for _, c := range n.children {
		found = append(found, c.all(name)...)
	}
	return found
}

// values returns the attributes of a span or an event as text.
func values(kvs []attribute.KeyValue) map[string]string {
	m := make(map[string]string)
	for _, kv := range kvs {
		m[string(kv.Key)] = kv.Value.String()
	}
	return m
}

func TestStatementIsOneOperationWithItsAttemptsUnderTheCallersSpan(t *testing.T) {
	d, p := newProxied(t)
	r := newTracer(t)
	db := open(t, through(p, d), r.option())
	tree := r.trace(t, func(ctx context.Context) {
		_, err := db.ExecContext(ctx, "create table item (id text)")
		require.NoError(t, err)
	})
	// The first statement connects.
	require.Equal(t, "caller(retrypg.connect(retrypg.attempt(sql.connector.connect)) retrypg.statement(retrypg.attempt(sql.conn.exec)))", tree.String())

	tree = r.trace(t, func(ctx context.Context) {
		_, err := db.ExecContext(ctx, "insert into item values ($1) -- "+secret, secret)
		require.NoError(t, err)
		var got string
		require.NoError(t, db.QueryRowContext(ctx, "select '"+secret+"' from item where id = $1", secret).Scan(&got))
	})
	require.Len(t, tree.children, 2)
	statement, attempt := tree.children[0], tree.children[0].children[0]
	require.Equal(t, "retrypg.statement", statement.Name())
	require.Equal(t, trace.SpanKindInternal, statement.SpanKind())
	require.Equal(t, codes.Unset, statement.Status().Code)
	require.Equal(t, map[string]string{
		"retry.operation": "statement", "db.system.name": "postgresql",
		"server.address": "127.0.0.1", "server.port": fmt.Sprint(p.Port()),
	}, values(statement.Attributes()))
	require.Equal(t, map[string]string{"retry.operation": "statement", "retry.attempt": "1"}, values(attempt.Attributes()))
	require.Equal(t, trace.SpanKindClient, attempt.children[0].SpanKind())
	require.NotNil(t, tree.children[1].at("sql.conn.query"))
}

func TestConnectHasASpanForEachAttempt(t *testing.T) {
	d, p := newProxied(t)
	r := newTracer(t)
	db := open(t, through(p, d), r.option())
	p.OnMessages(2, authentication, refusing("57P03", "the database system is starting up"))
	tree := r.trace(t, func(ctx context.Context) { require.NoError(t, db.PingContext(ctx)) })
	connect := tree.at("retrypg.connect")
	require.NotNil(t, connect, "%v", tree)
	require.Equal(t, codes.Unset, connect.Status().Code)
	require.Len(t, connect.children, 3)
	for i, attempt := range connect.children {
		got := values(attempt.Attributes())
		require.Equal(t, fmt.Sprint(i+1), got["retry.attempt"])
		require.Equal(t, map[bool]string{true: "57P03"}[i < 2], got["db.response.status_code"])
	}

	require.NoError(t, p.SetAccept(pgtest.AcceptRefuse))
	other := open(t, through(p, d, "retry_connect_max_elapsed=100ms"), r.option())
	tree = r.trace(t, func(ctx context.Context) {
		require.Error(t, other.PingContext(context.WithoutCancel(ctx)))
	})
	connect = tree.at("retrypg.connect")
	require.Equal(t, codes.Error, connect.Status().Code)
	require.NotEmpty(t, values(connect.Attributes())["error.type"])
}

func TestTransactionIsOneOperationWithItsAttemptsAndBackoffs(t *testing.T) {
	d, p := newProxied(t)
	r := newTracer(t)
	db, pool := open(t, through(p, d), r.option()), newPool(t, through(p, d), r.option())
	require.NoError(t, db.PingContext(within(t)))
	require.NoError(t, pool.Ping(within(t)))
	opts := retrypg.TxOptions{Name: "transfer"}
	conflict := "do $$ begin raise exception '" + secret + "' using errcode = '40001'; end $$"
	for name, run := range map[string]func(ctx context.Context) error{
		"WithTx": func(ctx context.Context) error {
			return retrypg.WithTx(ctx, db, opts, func(ctx context.Context, tx *sql.Tx) error {
				if retrypg.AttemptFromContext(ctx) == 3 {
					return nil
				}
				_, err := tx.ExecContext(ctx, conflict)
				return err
			})
		},
		"WithPgxTx": func(ctx context.Context) error {
			return retrypg.WithPgxTx(ctx, pool, opts, func(ctx context.Context, tx pgx.Tx) error {
				if retrypg.AttemptFromContext(ctx) == 3 {
					return nil
				}
				_, err := tx.Exec(ctx, conflict)
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := r.trace(t, func(ctx context.Context) { require.NoError(t, run(ctx)) })
			require.Len(t, tree.children, 1, "%v", tree)
			op := tree.children[0]
			require.Equal(t, "retrypg.transaction", op.Name())
			require.Equal(t, codes.Unset, op.Status().Code)
			require.Equal(t, "transfer", values(op.Attributes())["retry.name"])
			require.Len(t, op.children, 3, "%v", tree)
			for i, attempt := range op.children {
				got := values(attempt.Attributes())
				require.Equal(t, "retrypg.attempt", attempt.Name())
				require.Equal(t, "transaction", got["retry.operation"])
				require.Equal(t, fmt.Sprint(i+1), got["retry.attempt"])
				require.Equal(t, codes.Unset, attempt.Status().Code, "the operation succeeded")
				if i < 2 {
					require.Equal(t, "40001", got["db.response.status_code"])
				}
				if name == "WithTx" {
					require.NotNil(t, attempt.at("sql.conn.begin_tx"), "%v", tree)
				}
			}
			if name == "WithTx" {
				require.NotNil(t, op.children[0].at("sql.conn.exec"), "%v", tree)
				require.NotNil(t, op.children[0].at("sql.tx.rollback"), "%v", tree)
				require.NotNil(t, op.children[2].at("sql.tx.commit"), "%v", tree)
			}
			require.Len(t, op.Events(), 2)
			for i, e := range op.Events() {
				require.Equal(t, "retry.backoff", e.Name)
				got := values(e.Attributes)
				require.Equal(t, fmt.Sprint(i+1), got["retry.attempt"])
				require.Equal(t, "40001", got["db.response.status_code"])
				require.Equal(t, "transaction", got["retry.class"])
				require.Contains(t, got, "retry.delay")
			}
		})
	}
}

func TestFailedOperationTellsTheCodeAndTheReasonAndNothingElse(t *testing.T) {
	d, p := newProxied(t)
	r := newTracer(t)
	db, pool := open(t, through(p, d), r.option()), newPool(t, through(p, d), r.option())
	require.NoError(t, db.PingContext(within(t)))
	require.NoError(t, pool.Ping(within(t)))
	wrong := "select 1 from " + secret
	for name, run := range map[string]func(ctx context.Context) error{
		"db.Exec":       func(ctx context.Context) error { _, err := db.ExecContext(ctx, wrong); return err },
		"pool.Exec":     func(ctx context.Context) error { _, err := pool.Exec(ctx, wrong); return err },
		"pool.QueryRow": func(ctx context.Context) error { return pool.QueryRow(ctx, wrong).Scan(new(int)) },
	} {
		t.Run(name, func(t *testing.T) {
			tree := r.trace(t, func(ctx context.Context) { require.Equal(t, "42P01", retrypg.SQLState(run(ctx))) })
			op := tree.at("retrypg.statement")
			require.NotNil(t, op, "%v", tree)
			require.Equal(t, codes.Error, op.Status().Code)
			got := values(op.Attributes())
			require.Equal(t, "42P01", got["db.response.status_code"])
			require.Equal(t, "42P01", got["error.type"])
			require.Equal(t, "not_retryable", got["retry.stop_reason"])
			require.Equal(t, codes.Error, op.at("retrypg.attempt").Status().Code)
		})
	}
}

// TestWaitReadyHasASpan too.
func TestWaitReadyHasASpan(t *testing.T) {
	d, p := newProxied(t)
	r := newTracer(t)
	p.OnMessage(authentication, refusing("57P03", "the database system is starting up"))
	tree := r.trace(t, func(ctx context.Context) { require.NoError(t, retrypg.WaitReady(ctx, through(p, d), r.option())) })
	require.Equal(t, "caller(retrypg.ready(retrypg.attempt retrypg.attempt))", tree.String())
}

func TestWithoutTelemetryNothingIsRecorded(t *testing.T) {
	d, p := newProxied(t)
	r := newTracer(t)
	db := open(t, through(p, d), r.option(), retrypg.WithoutTelemetry())
	tree := r.trace(t, func(ctx context.Context) { require.NoError(t, db.PingContext(ctx)) })
	require.Equal(t, "caller", tree.String())
}

// TestACheckOfALostCommitIsAnOperationUnderItsTransaction.
func TestACheckOfALostCommitIsAnOperationUnderItsTransaction(t *testing.T) {
	d, p := newProxied(t)
	r := newTracer(t)
	db := open(t, through(p, d), r.option())
	require.NoError(t, db.PingContext(within(t)))
	p.OnMessage(pgtest.Reply("commit"), pgtest.CutBefore(pgtest.Both, pgtest.FIN))
	tree := r.trace(t, func(ctx context.Context) {
		require.NoError(t, retrypg.WithTx(ctx, db, retrypg.TxOptions{Name: "transfer"}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "select 1") // without a statement there is no COMMIT
			return err
		}))
	})
	transaction := tree.at("retrypg.transaction")
	check := transaction.at("retrypg.commit_check")
	require.NotNil(t, check, "%v", tree)
	got := values(check.Attributes())
	require.Equal(t, "committed", got["retry.commit_outcome"], "%v", got)
	require.Equal(t, "false", got["retry.commit_fenced"], "%v", got)
	require.NotEmpty(t, got["retry.commit_asked"], "%v", got)
	require.Equal(t, codes.Unset, check.Status().Code)
	require.NotNil(t, check.at("retrypg.connect"), "the connection that is asked over: %v", tree)
}
