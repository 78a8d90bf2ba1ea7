package pgtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Match says whether a rule is about a message. It is called from the goroutines of the proxy, without a lock, for
// each message that passes while the rule waits; it must be quick and safe for concurrent use, and must not keep Body.
type Match func(Message) bool

// beginsWith compares without regard to case and to white space at the front: "commit" is found in "COMMIT" and in
// "commit; select 1", "insert into t" in "insert into t values (1)".
func beginsWith(sql, text string) bool {
	sql = strings.TrimLeft(sql, " \t\r\n")
	return len(sql) >= len(text) && strings.EqualFold(sql[:len(text)], text)
}

// Sending matches the first message that carries a statement beginning with text towards the server: Query, or of
// the extended protocol Parse or Bind. Before it is forwarded the server knows nothing of the statement.
func Sending(text string) Match {
	return func(m Message) bool {
		return m.Dir == FromClient && (m.Type == 'Q' || m.Type == 'P' || m.Type == 'B') && beginsWith(m.SQL, text)
	}
}

// Sent matches the last message that the server needs to run a statement beginning with text to its end: Query, or
// the Sync after its Execute. Cutting after it leaves the server running the statement.
func Sent(text string) Match {
	return func(m Message) bool {
		return m.Dir == FromClient && (m.Type == 'Q' || m.Type == 'S') && m.carries(text)
	}
}

// carries reports whether a statement of the message's flight begins with text.
func (m Message) carries(text string) bool {
	return slices.ContainsFunc(m.Flight, func(sql string) bool { return beginsWith(sql, text) })
}

// Row matches the k-th row, from 1, that answers a statement beginning with text.
func Row(text string, k int) Match {
	return func(m Message) bool {
		return m.Dir == FromServer && m.Type == 'D' && m.Row == k && beginsWith(m.SQL, text)
	}
}

// Reply matches the CommandComplete of a statement beginning with text: the server has run it. Of several statements
// in one Query, it matches each.
func Reply(text string) Match {
	return func(m Message) bool { return m.Dir == FromServer && m.Type == 'C' && beginsWith(m.SQL, text) }
}

// ReplyReady matches the ReadyForQuery that ends the answer to a statement beginning with text.
func ReplyReady(text string) Match {
	return func(m Message) bool { return m.Dir == FromServer && m.Type == 'Z' && m.carries(text) }
}

// Tag matches a CommandComplete by its tag, whatever the statement was: "COMMIT", "INSERT 0 1".
func Tag(tag string) Match {
	return func(m Message) bool { return m.Dir == FromServer && m.Type == 'C' && m.Tag == tag }
}

// Failure matches an ErrorResponse by its SQLSTATE.
func Failure(code string) Match {
	return func(m Message) bool { return m.Dir == FromServer && m.Type == 'E' && m.Code == code }
}

// Action is what a rule does with the message it matches.
type Action struct {
	kind actionKind
	side Side
	how  Cut
	tell []pgproto3.BackendMessage
}

type actionKind uint8

const (
	cutBefore actionKind = iota
	cutAfter
	cutInside
	pause
	deliverLate
	blackHoleBefore
	blackHoleAfter
	answer
)

// CutBefore cuts the connection; the message is not forwarded.
func CutBefore(side Side, how Cut) Action { return Action{kind: cutBefore, side: side, how: how} }

// CutAfter forwards the message and then cuts the connection. With FIN the receiver gets it for certain. After RST it
// may lose it, if it has not read it by then.
func CutAfter(side Side, how Cut) Action { return Action{kind: cutAfter, side: side, how: how} }

// CutInside forwards half of the bytes of the message and then cuts the connection.
func CutInside(side Side, how Cut) Action { return Action{kind: cutInside, side: side, how: how} }

// Pause keeps the message, and what follows it in the same direction, until [Rule.Release].
func Pause() Action { return Action{kind: pause} }

// DeliverLate cuts the client's side at once and keeps the message, and the rest of what the client sent with it,
// until [Rule.Release]; only then does the server get it, and after it the end of the connection. It is for messages
// from the client.
func DeliverLate(how Cut) Action { return Action{kind: deliverLate, side: Client, how: how} }

// BlackHoleBefore swallows the message and everything after it, in both directions; the sockets stay open.
func BlackHoleBefore() Action { return Action{kind: blackHoleBefore} }

// BlackHoleAfter forwards the message and swallows everything after it, in both directions; the sockets stay open.
func BlackHoleAfter() Action { return Action{kind: blackHoleAfter} }

// Answer sends msgs to the client; the message is not forwarded. The connection goes on, so msgs must be a complete
// answer, ReadyForQuery included, unless they end it.
func Answer(msgs ...pgproto3.BackendMessage) Action { return Action{kind: answer, tell: msgs} }

// Telling returns the action with msgs sent to the client just before the cut: what a server or a pooler says as it
// dies.
func (a Action) Telling(msgs ...pgproto3.BackendMessage) Action {
	a.tell = msgs
	return a
}

// Rule is an action waiting for its message.
type Rule struct {
	proxy  *Proxy
	match  Match
	action Action

	mu       sync.Mutex
	left     int
	fired    int
	signal   chan struct{} // closed and replaced at each firing
	released chan struct{}
	open     bool // released is closed
}

// OnMessage installs a rule for the next message that matches: it fires once. Rules are asked in the order in which
// they were installed, and the first that matches takes the message.
func (p *Proxy) OnMessage(match Match, action Action) *Rule { return p.OnMessages(1, match, action) }

// OnMessages is OnMessage for the next n messages that match.
func (p *Proxy) OnMessages(n int, match Match, action Action) *Rule {
	r := &Rule{
		proxy: p, match: match, action: action, left: n,
		signal: make(chan struct{}), released: make(chan struct{}),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(slices.Clip(p.rules), r)
	return r
}

// Fired returns how often the rule has fired.
func (r *Rule) Fired() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fired
}

// Wait blocks until the rule has fired at least once and its action is done, up to its pause if it has one, or until
// ctx is done or the proxy closed.
func (r *Rule) Wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		fired, signal := r.fired, r.signal
		r.mu.Unlock()
		if fired > 0 {
			return nil
		}
		select {
		case <-signal:
		case <-r.proxy.ctx.Done():
			return fmt.Errorf("wait for a rule to fire: %w", ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("wait for a rule to fire: %w", context.Cause(ctx))
		}
	}
}

// Release lets the messages go on that Pause or DeliverLate keeps, those to come too. It may be called more than once.
func (r *Rule) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open {
		r.open = true
		close(r.released)
	}
}

// Remove takes the rule away; messages it keeps go on.
func (r *Rule) Remove() {
	r.proxy.mu.Lock()
	r.proxy.rules = slices.DeleteFunc(slices.Clone(r.proxy.rules), func(other *Rule) bool { return other == r })
	r.proxy.mu.Unlock()
	r.Release()
}

func (r *Rule) spent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left <= 0
}

// claim takes one of the firings that are left.
func (r *Rule) claim() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left <= 0 {
		return false
	}
	r.left--
	return true
}

func (r *Rule) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fired++
	close(r.signal)
	r.signal = make(chan struct{})
}

// ruleFor returns the rule that takes the message, or nil.
func (p *Proxy) ruleFor(m Message) *Rule {
	p.mu.Lock()
	rules := p.rules
	p.mu.Unlock()
	for _, r := range rules {
		if !r.spent() && r.match(m) && r.claim() {
			return r
		}
	}
	return nil
}
