package spool

import (
	"encoding/binary"
	"fmt"
	"strings"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// The rows of the spool. Numbers are big-endian, so that keys sort as they do.
//
//	q/<queue>                 Queue
//	s/<time><queue>           cause: the schedule, one row per queue that is to be tried
//	m/<queue>\0<id>           Message
//	i/<id><queue>             nothing: where a message stands
//	B/<body>                  bodyRow, where the body has other than one chunk and one user
//	b/<body><n>               chunk n of a body, raw
//	g/<time><body>            nothing: staged bodies by their expiry
//	e/<time><id><queue>       nothing: messages by their expiry
//	o/<id><seq><queue>        Owed
//	tr/<id><queue>            Removed
//	te/<time><id><queue>      nothing: removed messages by their expiry
//	x/<scope>                 Hold of a suspension
//	br/<key>                  Aside: a row of that key, of any package, that did not decode
//	w/sweep                   when the last sweep began
//	w/owed                    the last Seq of an owed bounce
const (
	queuePrefix   = "q/"
	schedPrefix   = "s/"
	messagePrefix = "m/"
	wherePrefix   = "i/"
	bodyPrefix    = "B/"
	chunkPrefix   = "b/"
	stagedPrefix  = "g/"
	expiryPrefix  = "e/"
	owedPrefix    = "o/"
	trashPrefix   = "tr/"
	trashExpiry   = "te/"
	suspendPrefix = "x/"
	asidePrefix   = kv.AsidePrefix
	sweepKey      = "w/sweep"
	owedSeqKey    = "w/owed"
)

func u64(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

func queueKey(q QueueName) []byte { return append([]byte(queuePrefix), q...) }

func schedKey(at mail.Time, q QueueName) []byte {
	return append(u64([]byte(schedPrefix), uint64(at)), q...)
}

func messagesKey(q QueueName) []byte {
	return append(append([]byte(messagePrefix), q...), 0)
}

func messageKey(q QueueName, id mail.ID) []byte { return u64(messagesKey(q), uint64(id)) }

func whereKey(id mail.ID, q QueueName) []byte {
	return append(u64([]byte(wherePrefix), uint64(id)), q...)
}

func bodyKey(id BodyID) []byte { return u64([]byte(bodyPrefix), uint64(id)) }

func chunkKey(id BodyID, n int) []byte {
	return binary.BigEndian.AppendUint32(u64([]byte(chunkPrefix), uint64(id)), uint32(n))
}

func stagedKey(at mail.Time, id BodyID) []byte {
	return u64(u64([]byte(stagedPrefix), uint64(at)), uint64(id))
}

func timedKey(prefix string, at mail.Time, id mail.ID, q QueueName) []byte {
	return append(u64(u64([]byte(prefix), uint64(at)), uint64(id)), q...)
}

func owedKey(k OwedKey) []byte {
	return append(u64(u64([]byte(owedPrefix), uint64(k.ID)), k.Seq), k.Queue...)
}

func trashKey(id mail.ID, q QueueName) []byte {
	return append(u64([]byte(trashPrefix), uint64(id)), q...)
}

func suspendKey(s Scope) []byte { return append([]byte(suspendPrefix), s...) }

// cutU64 takes a number off the front of a key's rest.
func cutU64(b []byte) (uint64, []byte, error) {
	if len(b) < 8 {
		return 0, nil, fmt.Errorf("key is %d bytes too short", 8-len(b))
	}
	return binary.BigEndian.Uint64(b), b[8:], nil
}

// cutTimed splits the key of an expiry row.
func cutTimed(prefix string, key []byte) (at mail.Time, id mail.ID, q QueueName, err error) {
	t, rest, err := cutU64(key[len(prefix):])
	if err != nil {
		return 0, 0, "", err
	}
	n, rest, err := cutU64(rest)
	return mail.Time(t), mail.ID(n), QueueName(rest), err
}

func prefixRange(prefix []byte) (lower, upper []byte) { return prefix, kv.PrefixEnd(prefix) }

// after is the smallest key greater than key.
func after(key []byte) []byte { return append(key[:len(key):len(key)], 0) }

// brokenRow is the error for a row that does not decode: damage on the disk or
// an older build that does not know a newer field.
func brokenRow(what string, err error) error {
	return &mail.Error{Op: "spool", Kind: mail.Broken, Err: fmt.Errorf("%s is damaged: %w", what, err)}
}

func invalid(format string, args ...any) error {
	return &mail.Error{Op: "spool", Kind: mail.Invalid, Err: fmt.Errorf(format, args...)}
}

// clip shortens another side's words to what is kept.
func clip(s string) string {
	if len(s) > MaxWordsBytes {
		s = strings.ToValidUTF8(s[:MaxWordsBytes], "")
	}
	return s
}
