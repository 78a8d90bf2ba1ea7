package piggyback

import "hash/maphash"

// digest hashes the rows and command tags that are handed on to the user of a connection: what it has read.
type digest struct {
	hash   maphash.Hash
	left   int             // bytes of the message that are to come
	hashed bool            // it is one that counts
	head   [headerLen]byte // of the next message
	had    int             // bytes of head
}

var seed = maphash.MakeSeed() // one for all: sums are compared

// Digest makes Sum tell of what is read from now on. It is false where that cannot be told. The user must have read all that answers what it has
// sent.
func (c *Conn) Digest() bool {
	if c.framing.inside() || c.flight.pass > 0 {
		c.digest = nil
		return false
	}
	c.digest = new(digest)
	c.digest.hash.SetSeed(seed)
	return true
}

// Sum returns a hash of all rows and command tags that the user has read since Digest, in their order. Within a process, two that differ are those of
// different answers; two that are equal are not, but for a chance of one in 2^64.
func (c *Conn) Sum() (sum uint64, known bool) {
	if c.digest == nil {
		return 0, false
	}
	return c.digest.hash.Sum64(), true
}

// follow is told of bytes that were handed on.
func (d *digest) follow(b []byte) {
	for len(b) > 0 {
		if d.left > 0 {
			n := min(d.left, len(b))
			if d.hashed {
				_, _ = d.hash.Write(b[:n]) // it never fails
			}
			d.left -= n
			b = b[n:]
			continue
		}
		n := copy(d.head[d.had:], b)
		b = b[n:]
		if d.had += n; d.had < headerLen {
			return
		}
		d.had, d.left = 0, max(sizeOf(d.head[:])-headerLen, 0)
		if d.hashed = d.head[0] == msgDataRow || d.head[0] == msgCommandComplete; d.hashed {
			_, _ = d.hash.Write(d.head[:])
		}
	}
}
