package wire

import (
	"time"

	"bsmtpd/mail"
)

// The states of a message, in the field queue_name.
const (
	StateActive   = "active"   // a session works on its queue
	StateDeferred = "deferred" // it waits for the next attempt
	StateHold     = "hold"     // the message or its queue is held, or delivery suspended
	StateMailbox  = "mailbox"  // it waits to be collected
	StateTrash    = "trash"    // it was removed and can be requeued
)

// QueueRow is one message in one queue, with the names of postqueue -j.
type QueueRow struct {
	QueueName   string      `json:"queue_name" doc:"the state: active, deferred, hold, mailbox or trash"`
	QueueID     string      `json:"queue_id"`
	ArrivalTime int64       `json:"arrival_time" doc:"unix seconds"`
	MessageSize int64       `json:"message_size" doc:"bytes"`
	Sender      string      `json:"sender" doc:"MAILER-DAEMON for the null sender"`
	Recipients  []Recipient `json:"recipients"`
	Account     mail.Login  `json:"account,omitempty" doc:"empty for mail to the world"`
	Queue       string      `json:"queue" doc:"account/LOGIN, mailbox/LOGIN or out/DOMAIN"`
	Attempts    int         `json:"attempts" doc:"attempts in which its turn came and it was put off"`
	Failures    int         `json:"failures,omitempty" doc:"attempts on its queue in a row that failed, of which it has seen at least the last"`
	NextAttempt int64       `json:"next_attempt,omitempty" doc:"unix seconds; 0: none is due"`
}

// NullSender is how the null reverse-path stands in a QueueRow.
const NullSender = "MAILER-DAEMON"

// Recipient is one that is still to be reached.
type Recipient struct {
	Address     string `json:"address"`
	DelayReason string `json:"delay_reason,omitempty" doc:"what was last said about it"`
}

// Message is all that is known of a message: what its rows say, one for each queue.
type Message struct {
	QueueID string          `json:"queue_id"`
	Rows    []MessageInfo   `json:"rows"`
	Queues  []*QueueSummary `json:"queues,omitempty"`
}

// MessageInfo is one row with the rest of its envelope.
type MessageInfo struct {
	QueueRow
	Arrived  time.Time `json:"arrived"`
	EnvID    string    `json:"envid,omitempty"`
	Return   string    `json:"ret,omitempty" doc:"FULL or HDRS"`
	UTF8     bool      `json:"smtputf8,omitempty"`
	EightBit bool      `json:"8bitmime,omitempty"`
	Hold     *Hold     `json:"hold,omitempty"`
	RetryAt  time.Time `json:"retry_at,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	Removed  *Hold     `json:"removed,omitempty" doc:"who removed it, why, and until when it can be requeued"`
}

// Ages are the upper ends of the age buckets of a QueueSummary in minutes, as
// qshape has them; the last bucket has what is older.
var Ages = [...]int{5, 10, 20, 40, 80, 160, 320, 640, 1280}

// Buckets is how many messages have which age.
type Buckets [len(Ages) + 1]int64

// QueueSummary is one queue.
type QueueSummary struct {
	Queue    string     `json:"queue"`
	Account  mail.Login `json:"account,omitempty"`
	Messages int64      `json:"messages"`
	Bytes    int64      `json:"bytes"`
	Ages     []int64    `json:"ages,omitempty" doc:"messages up to 5, 10, 20, 40, 80, 160, 320, 640, 1280 minutes old, and older; not given where ages=false"`
	Oldest   time.Time  `json:"oldest,omitzero" doc:"arrival of the oldest message"`

	QuotaBytes   int64   `json:"quota_bytes,omitempty"`
	UsedBytes    int64   `json:"used_bytes,omitempty" doc:"queue and mailbox together"`
	QuotaPercent float64 `json:"quota_percent,omitempty"`

	NextAttempt time.Time `json:"next_attempt,omitzero"`
	NextCause   string    `json:"next_cause,omitempty" doc:"login, operator, new, timer, sweep …"`
	Active      string    `json:"active,omitempty" doc:"node whose session works on it now"`
	Failing     bool      `json:"failing,omitempty"`
	Failures    int       `json:"failures,omitempty" doc:"failed attempts in a row"`
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	LastCause   string    `json:"last_cause,omitempty"`
	LastOutcome string    `json:"last_outcome,omitempty"`
	LastWords   string    `json:"last_words,omitempty" doc:"the other side's own words"`
	LastRemote  string    `json:"last_remote,omitempty"`
	LastBanner  string    `json:"last_banner,omitempty"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastLogin   time.Time `json:"last_login,omitzero"`
	LastTrigger time.Time `json:"last_login_trigger,omitzero"`
	Debounced   int64     `json:"debounced,omitempty" doc:"logins debounced since the last one that triggered"`
	Hold        *Hold     `json:"hold,omitempty"`
	Suspended   string    `json:"suspended,omitempty" doc:"scope of the suspension that stops it"`

	HeldMessages int64 `json:"held_messages,omitempty" doc:"messages that are held one by one; not counted where ages=false"`
}

// Filter chooses messages. Fields that are given must all match; empty: all.
type Filter struct {
	Account   mail.Login `json:"account,omitempty" query:"account" doc:"queue and mailbox of the account"`
	Queue     string     `json:"queue,omitempty" query:"queue" doc:"account/LOGIN, mailbox/LOGIN or out/DOMAIN"`
	Domain    string     `json:"domain,omitempty" query:"domain" doc:"a recipient's domain"`
	Sender    string     `json:"sender,omitempty" query:"sender" doc:"whole address, @domain, or a part of it between asterisks; <> for the null sender"`
	Recipient string     `json:"recipient,omitempty" query:"recipient" doc:"as sender"`
	MinAge    string     `json:"min_age,omitempty" query:"min_age" doc:"at least so old: 90s, 20m, 4h, 3d" example:"4h"`
	MaxAge    string     `json:"max_age,omitempty" query:"max_age"`
	MinSize   int64      `json:"min_size,omitempty" query:"min_size" doc:"bytes"`
	MaxSize   int64      `json:"max_size,omitempty" query:"max_size" doc:"bytes; 0: any"`
	State     string     `json:"state,omitempty" query:"state" doc:"active, deferred, hold, mailbox or trash; empty: all but trash"`
}

// Action asks to do something to messages, named by their IDs or by a filter.
type Action struct {
	Action string   `json:"action" enum:"hold,release,retry,bounce,remove,requeue"`
	IDs    []string `json:"ids,omitempty" maxItems:"10000" doc:"queue IDs; in every queue where they stand"`
	Filter *Filter  `json:"filter,omitempty" doc:"instead of ids"`
	All    bool     `json:"all,omitempty" doc:"must be true where the filter is empty"`
	DryRun bool     `json:"dry_run,omitempty" doc:"count, do nothing"`
	Reason string   `json:"reason,omitempty" maxLength:"500" doc:"for the audit"`
}

// QueueHold holds a whole queue, mail still to come included.
type QueueHold struct {
	Reason string    `json:"reason,omitempty" maxLength:"500"`
	Until  time.Time `json:"until,omitzero"`
}

// QueueRetry asks for attempts to whole queues: those named, or all.
type QueueRetry struct {
	Queues []string `json:"queues,omitempty" maxItems:"10000"`
	All    bool     `json:"all,omitempty"`
}

// Triggered says what a retry of one queue led to.
type Triggered struct {
	Messages int64  `json:"messages" doc:"waiting in the queue"`
	State    string `json:"state" doc:"due, busy (a session is at work already), empty or held"`
}
