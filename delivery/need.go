package delivery

import (
	"context"
	"io"
	"iter"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// Spool takes a session's commands. Their errors are *mail.Error; Unavailable
// means not committed, or unknown.
type Spool interface {
	Claim(ctx context.Context, c spool.Claim) (spool.ClaimResult, error)
	Settle(ctx context.Context, c spool.Settle) (spool.Settled, error)
	Finish(ctx context.Context, c spool.Finish) (spool.Finished, error)
}

// Rows are what sessions and the planner read.
type Rows interface {
	Queue(name spool.QueueName) (spool.Queue, bool, error)
	Messages(queue spool.QueueName, after mail.ID, err *error) iter.Seq[spool.Message]
	Body(id spool.BodyID) (io.ReadCloser, error)
	Small(id spool.BodyID, size int64) ([]byte, error) // nil: ask Body
	Due(now mail.Time, limit int) ([]spool.Due, error)
	DueAfter(after spool.Due, now mail.Time, limit int) ([]spool.Due, error)
	Suspended(queue spool.QueueName, now mail.Time) (*spool.Suspension, error)
}

var _ Rows = spool.Reader{}
