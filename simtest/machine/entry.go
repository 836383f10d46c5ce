// Package machine is the lower level of the simulation: cluster.Machine
// and delivery's planner under a log that is written here, in one goroutine, so
// that a seed gives the same run to the bit.
//
// A town proposes commands of every kind and plays whatever stands around the
// machine: the proposer, its log, crashes, replays, snapshots, a second replica,
// push sessions and customers' servers. A model made of maps says what must be
// so, and check holds the rows against it. There are transcripts of the cases
// that people want to read in testdata.
package machine

import (
	"encoding/binary"
	"fmt"

	"bsmtpd/cluster"
	"bsmtpd/directory"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// proposal is a command on its way into the log.
type proposal struct {
	fields any
	beside []byte
}

// kindOf is the number of a command's kind. The numbers are written down here once
// more, for they stand in logs for ever: whoever changes one in cluster fails here.
func kindOf(fields any) uint64 {
	switch fields.(type) {
	case spool.Enqueue:
		return 1
	case spool.Stage:
		return 2
	case spool.Claim:
		return 3
	case spool.Settle:
		return 4
	case spool.Finish:
		return 5
	case spool.Trigger:
		return 6
	case spool.Sweep:
		return 7
	case spool.Expire:
		return 8
	case spool.Act:
		return 9
	case spool.HoldQueue:
		return 10
	case spool.Suspend:
		return 11
	case spool.Waive:
		return 12
	case directory.Event:
		return 20
	case directory.PutAccounts:
		return 21
	case directory.PutDomains:
		return 22
	case directory.RemoveAccount:
		return 23
	case directory.RemoveDomain:
		return 24
	case cluster.Settings:
		return 30
	}
	panic(fmt.Sprintf("machine: %T has no kind; give it its number here, and let a town propose it", fields))
}

// entry is a log entry as cluster/entry.go describes it, written by other hands.
func entry(at mail.Time, commands ...proposal) []byte {
	b := binary.BigEndian.AppendUint64([]byte{1}, uint64(at))
	for _, c := range commands {
		b = binary.AppendUvarint(b, kindOf(c.fields))
		b = binary.AppendUvarint(b, 1) // version of the fields
		for _, part := range [][]byte{kv.Encode(c.fields), c.beside} {
			b = binary.AppendUvarint(b, uint64(len(part)))
			b = append(b, part...)
		}
	}
	return b
}
