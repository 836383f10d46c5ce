package delivery

import (
	"fmt"

	"bsmtpd/mail"
)

// expectKind is which command a reply is awaited for.
type expectKind uint8

const (
	expectMail  expectKind = iota
	expectRcpt             // n-th recipient
	expectData             // 354 or a refusal
	expectFinal            // the answer to the end of data, or to BDAT LAST
	expectRset
	expectQuit
)

type expect struct {
	kind expectKind
	job  *job
	n    int
}

// ledger matches replies to commands, which is all that pipelining is about: it
// holds the commands that were sent and not answered, in order. It is pure; the
// pipe holds a lock around it.
type ledger struct {
	expects []expect
	jobs    int   // begun and not answered
	bytes   int64 // of their bodies
	order   []*job

	redo []*job // not attempted after all: to be sent again, in order
	sync bool   // let everything be answered, then RSET, then go on

	// dirty: the server may hold a transaction open. A server that refused all
	// recipients still has the sender of MAIL, and would answer 503 to the next
	// MAIL, or worse, take the next message under the wrong sender. So RSET goes
	// before the next MAIL; it travels with it and costs no round trip.
	dirty bool
}

// hangup is a 421: the server closes the connection.
type hangup struct{ reply mail.Reply }

func (e *hangup) Error() string { return e.reply.String() }

// noChunking is a server that offered CHUNKING and does not know BDAT. The body
// was taken for commands, so the connection is lost.
type noChunking struct{ reply mail.Reply }

func (e *noChunking) Error() string { return "BDAT was refused: " + e.reply.String() }

// begin notes that a job's transaction is about to be sent.
func (l *ledger) begin(j *job) {
	l.jobs++
	l.bytes += j.msg.Size
	l.order = append(l.order, j)
	l.dirty = true
}

func (l *ledger) expect(kind expectKind, j *job, n int) {
	l.expects = append(l.expects, expect{kind, j, n})
}

// expectEnvelope notes MAIL and the RCPTs of a job.
func (l *ledger) expectEnvelope(j *job) {
	l.expect(expectMail, j, 0)
	for i := range j.to {
		l.expect(expectRcpt, j, i)
	}
}

// answered takes one reply. done is the job that it completes, or nil. An error
// ends the connection: nothing that the server says can be believed after it.
func (l *ledger) answered(r mail.Reply) (done *job, err error) {
	if r.Code == 421 {
		return nil, &hangup{r}
	}
	if len(l.expects) == 0 {
		return nil, &nonsense{fmt.Sprintf("the server answered what it was not asked: %s", r)}
	}
	e := l.expects[0]
	l.expects = l.expects[1:]
	if len(l.expects) == 0 {
		l.expects = nil
	}
	if r.Code/100 == 3 && e.kind != expectData {
		return nil, unexpected(r)
	}
	switch e.kind {
	case expectMail:
		e.job.mail = r
	case expectRcpt:
		e.job.rcpt[e.n] = r
	case expectData:
		return l.answeredData(e.job, r)
	case expectFinal:
		return l.answeredFinal(e.job, r)
	case expectRset:
		if !r.Positive() {
			return nil, unexpected(r)
		}
	}
	return nil, nil
}

func unexpected(r mail.Reply) error {
	return &nonsense{fmt.Sprintf("the server's answer does not fit the command: %s", r)}
}

func (l *ledger) answeredData(j *job, r mail.Reply) (*job, error) {
	j.data = r
	switch {
	case r.Code == 354 && !j.mail.Positive():
		// A message under somebody else's envelope: not one byte more.
		return nil, unexpected(r)
	case r.Code == 354:
		return nil, nil
	case r.Positive() || r.Code/100 == 3:
		return nil, unexpected(r)
	}
	return l.complete(j), nil
}

func (l *ledger) answeredFinal(j *job, r mail.Reply) (*job, error) {
	j.final = r
	switch {
	case r.Positive() && (!j.sent || !j.mail.Positive()):
		// Said before the message had left, or of a message without sender.
		return nil, unexpected(r)
	case j.data.Code == 0 && j.mail.Positive() && j.accepted() > 0 && (r.Code == 500 || r.Code == 502 || r.Code == 504):
		return nil, &noChunking{r}
	case j.mail.Positive() && (r.Positive() || j.accepted() > 0) || j.data.Code == 354:
		if len(l.order) > 0 && l.order[len(l.order)-1] == j {
			l.dirty = false // the end of data ends the transaction, also when it is refused
		}
	}
	return l.complete(j), nil
}

// complete takes a job off. A 503 to MAIL means that the server still had an
// earlier transaction open: the message was not attempted, and is sent again
// after a RSET, once. It returns nil for such a job.
func (l *ledger) complete(j *job) *job {
	l.jobs--
	l.bytes -= j.msg.Size
	for i, o := range l.order {
		if o == j {
			l.order = append(l.order[:i:i], l.order[i+1:]...)
			break
		}
	}
	if j.mail.Code == 503 && j.redone == 0 {
		j.redone++
		l.redo = append(l.redo, j)
		l.sync = true
		return nil
	}
	return j
}

// ended notes that the end of data was sent after a 354: whatever the server says
// to it, the transaction is over then (RFC 5321 section 4.1.1.4).
func (l *ledger) ended() { l.dirty = false }

// rest is every job that has no answer, in order: begun ones first.
func (l *ledger) rest() []*job {
	return append(append([]*job(nil), l.order...), l.redo...)
}

// possible counts messages that may have arrived although nobody said so.
func (l *ledger) possible() int {
	n := 0
	for _, j := range l.order {
		if j.sent {
			n++
		}
	}
	return n
}
