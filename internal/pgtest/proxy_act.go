package pgtest

import "time"

// act does what a rule says with a message; rest is what was read behind it. It returns whether the direction goes on.
func (c *ProxyConn) act(rule *Rule, m Message, text, rest []byte) bool {
	a := rule.action
	switch a.kind {
	case pause:
		rule.done()
		c.await(rule.released)
		if !c.gate(m.Dir, time.Now()) {
			return false
		}
		c.write(m.Dir, text)
		return true
	case deliverLate:
		c.Cut(Client, a.how)
		rule.done()
		select {
		case <-rule.released:
			c.write(m.Dir, append(text[:len(text):len(text)], rest...))
			endSocket(c.peer(m.Dir), FIN)
		case <-c.proxy.ctx.Done():
		}
		return false
	case answer:
		c.mu.Lock()
		c.track.unsend(m)
		c.mu.Unlock()
		c.tell(a)
		rule.done()
		return true
	case blackHoleBefore, blackHoleAfter:
		c.silence()
		if a.kind == blackHoleAfter {
			c.write(m.Dir, text)
		}
		rule.done()
		return false
	case cutAfter:
		c.silence()
		c.write(m.Dir, text)
	case cutInside:
		c.silence()
		c.write(m.Dir, text[:len(text)/2])
	}
	c.tell(a)
	c.Cut(a.side, a.how)
	rule.done()
	return false
}

// silence keeps everything from passing. It comes before the message of a rule is written, because the answer to that
// message must not pass either.
func (c *ProxyConn) silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.swallow = true
	c.notifyLocked()
}

// await waits for a pause to end; a cut ends it too.
func (c *ProxyConn) await(released <-chan struct{}) {
	for {
		c.mu.Lock()
		changed, cut := c.changed, c.cut
		c.mu.Unlock()
		if cut {
			return
		}
		select {
		case <-released:
			return
		case <-changed:
		case <-c.proxy.ctx.Done():
			return
		}
	}
}

// tell sends the messages of an action to the client.
func (c *ProxyConn) tell(a Action) {
	var buf []byte
	for _, msg := range a.tell {
		var err error
		if buf, err = msg.Encode(buf); err != nil {
			panic("pgtest: a rule tells a message that cannot be encoded: " + err.Error())
		}
	}
	c.write(FromServer, buf)
}
