package metric

import (
	"context"
	"log/slog"
	"time"

	"bsmtpd/mail"
)

// MailLog writes one line per event in a message's life, always with its queue
// ID under "id", so that one grep tells the whole story. It is safe for use by
// many goroutines.
type MailLog struct{ log *slog.Logger }

// NewMailLog writes to log, at level Info and above.
func NewMailLog(log *slog.Logger) *MailLog { return &MailLog{log} }

func (m *MailLog) line(level slog.Level, event string, id mail.ID, attrs ...slog.Attr) {
	if m == nil || !m.log.Enabled(context.Background(), level) {
		return
	}
	all := make([]slog.Attr, 0, len(attrs)+1)
	all = append(all, slog.String("id", id.String()))
	m.log.LogAttrs(context.Background(), level, event, append(all, attrs...)...)
}

// Queued: a message was committed. queues names where it waits.
func (m *MailLog) Queued(id mail.ID, client string, env *mail.Envelope, size int64, queues []string) {
	m.line(slog.LevelInfo, "queued", id, slog.String("client", client), slog.String("from", string(env.From)),
		slog.Int("recipients", len(env.To)), slog.Int64("size", size), slog.Any("queues", queues))
}

// Refused: a command or message was refused before anything was stored.
func (m *MailLog) Refused(client, stage string, from, to mail.Address, reply mail.Reply) {
	if m == nil {
		return
	}
	m.log.LogAttrs(context.Background(), slog.LevelInfo, "refused", slog.String("client", client), slog.String("stage", stage),
		slog.String("from", string(from)), slog.String("to", string(to)), slog.String("reply", reply.String()))
}

// Sent: the next server took the message for a recipient.
func (m *MailLog) Sent(id mail.ID, queue string, to mail.Address, remote string, reply mail.Reply, delay time.Duration) {
	m.line(slog.LevelInfo, "sent", id, slog.String("queue", queue), slog.String("to", string(to)),
		slog.String("remote", remote), slog.String("reply", reply.String()), slog.Duration("delay", delay))
}

// Deferred: the next server said "later" for a recipient.
func (m *MailLog) Deferred(id mail.ID, queue string, to mail.Address, remote string, reply mail.Reply, next time.Time) {
	m.line(slog.LevelInfo, "deferred", id, slog.String("queue", queue), slog.String("to", string(to)),
		slog.String("remote", remote), slog.String("reply", reply.String()), slog.Time("next", next))
}

// Failed: a recipient failed for good; a bounce is owed unless nobody wants it.
func (m *MailLog) Failed(id mail.ID, queue string, to mail.Address, remote string, reply mail.Reply) {
	m.line(slog.LevelInfo, "failed", id, slog.String("queue", queue), slog.String("to", string(to)),
		slog.String("remote", remote), slog.String("reply", reply.String()))
}

// Bounced: the notification about a message was queued under its own ID.
func (m *MailLog) Bounced(id, dsn mail.ID, to mail.Address, action string) {
	m.line(slog.LevelInfo, "bounced", id, slog.String("dsn", dsn.String()), slog.String("to", string(to)), slog.String("action", action))
}

// Unbounced: a notification was owed and could not be given to anybody.
func (m *MailLog) Unbounced(id mail.ID, reason string) {
	m.line(slog.LevelWarn, "unbounced", id, slog.String("reason", reason))
}

// Operated: an operator changed a message.
func (m *MailLog) Operated(id mail.ID, queue, action, by, reason string) {
	m.line(slog.LevelInfo, action, id, slog.String("queue", queue), slog.String("by", by), slog.String("reason", reason))
}

// Attempted: a push session to a queue ended.
func (m *MailLog) Attempted(queue, cause, remote, outcome string, sent int, words string, took time.Duration, next time.Time) {
	if m == nil {
		return
	}
	attrs := []slog.Attr{slog.String("queue", queue), slog.String("cause", cause),
		slog.String("remote", remote), slog.String("outcome", outcome), slog.Int("sent", sent),
		slog.String("words", words), slog.Duration("took", took)}
	if !next.IsZero() { // zero: the queue is empty or held
		attrs = append(attrs, slog.Time("next", next))
	}
	m.log.LogAttrs(context.Background(), slog.LevelInfo, "attempted", attrs...)
}
