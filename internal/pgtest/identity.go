package pgtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A copied cluster would have the system identifier of its template, and with it of every other copy: retrypg would
// take two unrelated servers for one. newIdentity gives the copy another one, as pg_resetwal --system-identifier does
// in PostgreSQL 18. The identifier is in two places (src/include/catalog/pg_control.h and access/xlog_internal.h):
// the first 8 bytes of global/pg_control, which ends in a CRC-32C, and the long page header at the start of each
// WAL segment, which no checksum covers.
func newIdentity(dataDir string) error {
	id := make([]byte, 8)
	binary.NativeEndian.PutUint64(id, rand.Uint64()>>1)
	old, err := changeControl(filepath.Join(dataDir, "global", "pg_control"), id)
	if err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(dataDir, "pg_wal", "????????????????????????"))
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		return errors.New("there is no WAL segment")
	}
	for _, segment := range segments {
		if err := changeSegment(segment, old, id); err != nil {
			return err
		}
	}
	return nil
}

// changeControl puts id into pg_control and returns the identifier that was there. The length of the structure
// differs between versions: it ends where a CRC of everything before it is found.
func changeControl(file string, id []byte) (old []byte, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	for end := 64; end+4 <= min(len(text), 512); end += 4 {
		if crc32.Checksum(text[:end], table) != binary.NativeEndian.Uint32(text[end:]) {
			continue
		}
		old = append(old, text[:8]...)
		copy(text, id)
		binary.NativeEndian.PutUint32(text[end:], crc32.Checksum(text[:end], table))
		return old, os.WriteFile(file, text, 0o600)
	}
	return nil, fmt.Errorf("%s: no checksum found", file)
}

// xlpSysidOffset is offsetof(XLogLongPageHeaderData, xlp_sysid): after magic, info, timeline, page address, remaining
// length and padding.
const xlpSysidOffset = 24

func changeSegment(file string, old, id []byte) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	was := make([]byte, len(id))
	if _, err := f.ReadAt(was, xlpSysidOffset); err != nil {
		return err
	}
	if string(was) != string(old) {
		return fmt.Errorf("%s: the system identifier is not where it is expected", file)
	}
	_, err = f.WriteAt(id, xlpSysidOffset)
	return err
}
