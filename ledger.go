package retrypg

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/jackc/pgx/v5"
)

// newToken returns a random UUID (version 4, RFC 9562).
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it does not fail (package crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:36], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// Clean-up of the ledger: every cleanUpEvery-th transaction of a connector or pool, after its COMMIT, deletes up to
// cleanUpRows tokens that are older than the retention. It deletes more than is written, so that a ledger which was left
// alone for long shrinks too. The server gives up after cleanUpTimeout, which bounds what that one caller waits.
const (
	cleanUpEvery   = 1000
	cleanUpRows    = 2 * cleanUpEvery
	cleanUpTimeout = time.Second
)

// cleanUp deletes old tokens if it is time. The connection is ready for that: its transaction has just committed.
func (c *core) cleanUp(ctx context.Context, conn *pgx.Conn) {
	if c.tokens.Add(1)%cleanUpEvery != 0 || conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*cleanUpTimeout) // of a server that does not answer
	defer cancel()
	_, err := conn.Exec(ctx, c.ledger.CleanUp(c.set.ledgerRetention, cleanUpRows, cleanUpTimeout))
	if err != nil && !conn.IsClosed() {
		_ = rollback(ctx, conn) // the next one may have more success
	}
}
