package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// An entry of the Raft log carries many commands:
//
//	1 byte   entryVersion
//	8 bytes  the proposer's time, microseconds, big-endian
//	then for each command
//	uvarint  kind
//	uvarint  version of the command's fields
//	uvarint  length of its CBOR, and the CBOR
//	uvarint  length of the bytes beside it (a body or chunk), and those bytes
const (
	entryVersion = 1
	entryHeader  = 1 + 8

	// MaxEntryBytes bounds an entry of several commands, so that an AppendEntries
	// call of MaxAppendEntries stays small. A chunk of spool.ChunkBytes with
	// its envelope of spool.MaxRecipients fits.
	MaxEntryBytes = 512 << 10

	// maxCommandBytes bounds one command, which then has an entry to itself; see
	// checkFits. raft-wal takes no entry above 64 MiB.
	maxCommandBytes = 4 << 20

	// A command with fields of at least so many bytes is read before it is
	// proposed. In fewer no list is longer than kv.Decode takes.
	doubtfulBytes = 64 << 10

	// targetEntryBytes is where coalescing stops.
	targetEntryBytes = 256 << 10

	// maxEntryCommands keeps the places of IDs within mail.MaxPlace: a command
	// takes at most one.
	maxEntryCommands = 4096
)

// command is one command as it stands in an entry.
type command struct {
	kind    Kind
	version uint64
	fields  []byte // CBOR
	beside  []byte // a body or chunk, or nil
}

// checkFits refuses a command that could be written to the log but not be read
// again: the log would bring it at every start, and stop the node every time.
// fields is what c.fields was made of.
func (c *command) checkFits(fields any) error {
	if c.size() > maxCommandBytes {
		return mail.Fail(mail.Invalid, fmt.Sprintf("a change of %d bytes; at most %d in one: split it", c.size(), maxCommandBytes))
	}
	if len(c.fields) < doubtfulBytes {
		return nil
	}
	if err := kv.Decode(c.fields, reflect.New(reflect.TypeOf(fields)).Interface()); err != nil {
		return &mail.Error{Op: "cluster", Kind: mail.Invalid, Err: fmt.Errorf("a change that is too large: %w", err)}
	}
	return nil
}

func (c *command) size() int { return len(c.fields) + len(c.beside) + 4*binary.MaxVarintLen64 }

func appendEntryHeader(b []byte, at mail.Time) []byte {
	return binary.BigEndian.AppendUint64(append(b, entryVersion), uint64(at))
}

func appendCommand(b []byte, c *command) []byte {
	b = binary.AppendUvarint(b, uint64(c.kind))
	b = binary.AppendUvarint(b, c.version)
	b = binary.AppendUvarint(b, uint64(len(c.fields)))
	b = append(b, c.fields...)
	b = binary.AppendUvarint(b, uint64(len(c.beside)))
	return append(b, c.beside...)
}

var errShort = errors.New("the entry ends too early")

// decodeEntry splits an entry. The commands share its memory.
func decodeEntry(b []byte) (mail.Time, []command, error) {
	if len(b) < entryHeader {
		return 0, nil, errShort
	}
	if b[0] != entryVersion {
		return 0, nil, fmt.Errorf("entry version %d; this build knows %d: it is older than the one that wrote the log", b[0], entryVersion)
	}
	at := mail.Time(binary.BigEndian.Uint64(b[1:]))
	b = b[entryHeader:]
	var out []command
	for len(b) > 0 {
		var c command
		var kind uint64
		var err error
		if kind, b, err = cutUvarint(b); err != nil {
			return 0, nil, err
		}
		c.kind = Kind(kind)
		if c.version, b, err = cutUvarint(b); err != nil {
			return 0, nil, err
		}
		if c.fields, b, err = cutBytes(b); err != nil {
			return 0, nil, err
		}
		if c.beside, b, err = cutBytes(b); err != nil {
			return 0, nil, err
		}
		if out = append(out, c); len(out) > maxEntryCommands {
			return 0, nil, fmt.Errorf("more than %d commands in one entry", maxEntryCommands)
		}
	}
	return at, out, nil
}

func cutUvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errShort
	}
	return v, b[n:], nil
}

func cutBytes(b []byte) ([]byte, []byte, error) {
	n, b, err := cutUvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)) {
		return nil, nil, errShort
	}
	return b[:n:n], b[n:], nil
}
