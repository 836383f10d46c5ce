package delivery

import (
	"bytes"
	"fmt"
	"io"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

// bodyReader gives the bytes of one message.
type bodyReader = io.ReadCloser

// prepare refuses here what the server has said that it cannot take, with the
// reply that RFC 5321, 6152 and 6531 foresee. It reports whether anything is left
// to be sent.
func (p *pipe) prepare(j *job) bool {
	e := &p.c.ext
	if e.sizeLimit > 0 && j.msg.Size > e.sizeLimit {
		p.local(j, j.all(spool.Failed, mail.Reply{Code: 552, Status: mail.Status{5, 3, 4},
			Text: fmt.Sprintf("the message has %d bytes; %s takes at most %d", j.msg.Size, p.c.host, e.sizeLimit)}))
		return false
	}
	if !p.dropSpoilt(j) {
		return false
	}
	wantsUTF8 := !e.utf8 && (j.msg.UTF8 || j.needsUTF8())
	if wantsUTF8 && !p.dropUTF8(j) {
		return false
	}
	// A PIX hides what the server behind it offers; see doc/decisions/020.
	wantsEight := !e.eightBit && !p.c.pix
	if !wantsUTF8 && !wantsEight {
		return true
	}
	r, err := p.body(j)
	if err != nil {
		p.spoil(j, err)
		return false
	}
	found, err := inspect(r)
	r.Close()
	switch {
	case err != nil:
		p.spoil(j, err)
		return false
	case wantsUTF8 && found.headerUTF8:
		p.local(j, j.all(spool.Failed, noUTF8(p.c.host)))
		return false
	case wantsEight && found.eightBit:
		p.local(j, j.all(spool.Failed, mail.Reply{Code: 554, Status: mail.Status{5, 6, 3},
			Text: "the message has 8-bit text and " + p.c.host + " takes only 7-bit (it offers no 8BITMIME)"}))
		return false
	}
	return true
}

func noUTF8(host string) mail.Reply {
	return mail.Reply{Code: 553, Status: mail.Status{5, 6, 7},
		Text: "the message has international addresses or headers, and " + host + " does not take them (it offers no SMTPUTF8)"}
}

// dropUTF8 fails the recipients that the server cannot be told.
func (p *pipe) dropUTF8(j *job) bool {
	all := j.msg.From.NeedsUTF8()
	return p.drop(j, noUTF8(p.c.host), func(r *spool.Recipient) bool { return all || r.Address.NeedsUTF8() })
}

func (p *pipe) dropSpoilt(j *job) bool {
	all := spoilt(j.msg.From)
	return p.drop(j, mail.Reply{Code: 553, Status: mail.Status{5, 1, 3}, Text: "the address cannot be written in SMTP"},
		func(r *spool.Recipient) bool { return all || spoilt(r.Address) })
}

// drop fails the recipients for which bad holds, and reports whether any is left.
func (p *pipe) drop(j *job, reply mail.Reply, bad func(*spool.Recipient) bool) bool {
	var keep []spool.Recipient
	var out []spool.RecipientResult
	for i := range j.to {
		if bad(&j.to[i]) {
			out = append(out, spool.RecipientResult{Address: j.to[i].Address, Fate: spool.Failed, Reply: reply})
		} else {
			keep = append(keep, j.to[i])
		}
	}
	if len(out) == 0 {
		return true
	}
	j.to = keep
	p.local(j, out)
	return len(keep) > 0
}

// openBody opens a job's body. A small one is read whole, so that a body that
// cannot be read is found before the server is told about it; a later open of the
// same job gives it again.
func openBody(rows Rows, j *job) (bodyReader, error) {
	if j.small != nil {
		return io.NopCloser(bytes.NewReader(j.small)), nil
	}
	if j.msg.Size <= smallBody {
		b, err := rows.Small(j.msg.Body, j.msg.Size)
		if err != nil {
			return nil, err
		}
		if b != nil {
			j.small = b
			return io.NopCloser(bytes.NewReader(b)), nil
		}
	}
	r, err := rows.Body(j.msg.Body)
	if err != nil || j.msg.Size > smallBody {
		return r, err
	}
	defer r.Close()
	b := make([]byte, j.msg.Size)
	if n, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("the stored body ends after %d of %d bytes: %w", n, j.msg.Size, err)
	}
	j.small = b
	return io.NopCloser(bytes.NewReader(b)), nil
}
