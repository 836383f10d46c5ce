package smtpd

import (
	"context"
	"errors"
	"fmt"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// Reasons of refusal, the values of a metric's label. strict.Cause has more.
const (
	reasonSyntax      = "syntax"
	reasonSequence    = "sequence"
	reasonHeader      = "header"
	reasonLoop        = "loop"
	reasonSize        = "size"
	reasonRelay       = "relay"
	reasonInactive    = "inactive"
	reasonMailbox     = "no_mailbox"
	reasonQuota       = "quota"
	reasonRecipients  = "recipients"
	reasonErrors      = "errors"
	reasonSession     = "session_limit"
	reasonMemory      = "memory"
	reasonLowSpace    = "low_space"
	reasonUnavailable = "unavailable"
	reasonBusy        = "busy"
	reasonInternal    = "internal"
)

// refusal is a negative reply and the reason under which it is counted.
type refusal struct {
	mail.Reply
	reason string
	hangUp bool // close the connection after the reply
}

var _ error = (*refusal)(nil)

func (r *refusal) Error() string { return r.String() }

func refuse(reason string, code int, status mail.Status, text string) *refusal {
	return &refusal{Reply: mail.Reply{Code: code, Status: status, Text: text}, reason: reason}
}

// hangUp is a refusal after which the connection is closed.
func hangUp(reason string, code int, status mail.Status, text string) *refusal {
	r := refuse(reason, code, status, text)
	r.hangUp = true
	return r
}

func syntax(code int, detail uint8, text string) *refusal {
	return refuse(reasonSyntax, code, mail.Status{5, 5, detail}, text)
}

// badSequence is for commands out of order (RFC 5321 section 4.1.4).
func badSequence(text string) *refusal {
	return refuse(reasonSequence, 503, mail.Status{5, 5, 1}, text)
}

// refusalOf is the one place that turns errors into replies. What went wrong
// inside the server is not told to the client beyond its kind.
func refusalOf(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var e *mail.Error
	if !errors.As(err, &e) {
		e = &mail.Error{Kind: mail.Other, Err: err}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e.Kind = mail.Unavailable
		}
	}
	r = refusalOfKind(e)
	if e.Status != (mail.Status{}) && int(e.Status[0]) == r.Code/100 {
		r.Status = e.Status
	}
	return r
}

func refusalOfKind(e *mail.Error) *refusal {
	text := e.Kind.String()
	if e.Err != nil {
		text = e.Err.Error()
	}
	switch e.Kind {
	case mail.LowSpace:
		return refuse(reasonLowSpace, 452, mail.Status{4, 3, 1}, text)
	case mail.OverQuota:
		return refuse(reasonQuota, 552, mail.Status{5, 2, 2}, text)
	case mail.NotFound:
		return refuse(reasonMailbox, 550, mail.Status{5, 1, 1}, text)
	case mail.Invalid:
		return refuse(reasonInternal, 554, mail.Status{5, 6, 0}, text)
	case mail.Denied:
		return refuse(reasonRelay, 554, mail.Status{5, 7, 1}, text)
	case mail.Limit:
		return refuse(reasonUnavailable, 451, mail.Status{4, 3, 2}, text)
	case mail.Unavailable:
		return refuse(reasonUnavailable, 451, mail.Status{4, 3, 0}, "the message could not be stored in time; try again later")
	}
	return refuse(reasonInternal, 451, mail.Status{4, 3, 0}, "a fault in this server; try again later")
}

// refusalAtMail is for what the node says before it takes any mail: a node that
// cannot take mail at all ends the session (RFC 5321 section 3.8).
func refusalAtMail(err error) *refusal {
	r := refusalOf(err)
	if mail.KindOf(err) != mail.Unavailable {
		return r
	}
	return hangUp(reasonUnavailable, 421, mail.Status{4, 3, 2}, "not taking mail now: "+causeText(err))
}

func causeText(err error) string {
	var e *mail.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

// refusalOfTargets is for a message of which no part was queued.
func refusalOfTargets(m *spool.Enqueue, got spool.Enqueued) *refusal {
	for i, t := range got.Targets {
		if t.Refusal == spool.OverQuota && i < len(m.Targets) {
			return refuse(reasonQuota, 552, mail.Status{5, 2, 2}, fmt.Sprintf("account %s has no room for %s: %s of %s used",
				m.Targets[i].Queue.Login(), mail.Size(m.Size), mail.Size(t.Usage), mail.Size(t.Quota)))
		}
	}
	for _, t := range got.Targets {
		if t.Refusal == spool.NoAccount {
			return refuse(reasonMailbox, 550, mail.Status{5, 1, 1}, "the recipient's account is gone")
		}
	}
	return refuse(reasonInternal, 451, mail.Status{4, 3, 0}, "a fault in this server; try again later")
}

func quotaRefusal(login mail.Login, usage, quota int64) *refusal {
	return refuse(reasonQuota, 552, mail.Status{5, 2, 2},
		fmt.Sprintf("account %s is full: %s of %s used", login, mail.Size(usage), mail.Size(quota)))
}

const maxReplyText = 480 // of the 512 octets of a reply line (RFC 5321 section 4.5.3.1.5)
