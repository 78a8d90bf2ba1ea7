//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package transport

const hasPeek = false

func (c *Conn) peekFD(uintptr) { c.peeked, c.peekErr = Unknown, nil }
