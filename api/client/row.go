package client

import (
	"encoding/json"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

// decodeRow reads one line of a list of messages, of which there can be a million.
// Lines in the form that a node of this version writes are read here, in a tenth of
// the time that encoding/json needs; every other one is left to it.
func decodeRow(line []byte, r *wire.QueueRow) error {
	s := scanner{rest: line}
	was := *r
	*r = wire.QueueRow{}
	s.object(func(key []byte) {
		switch string(key) {
		case "queue_name":
			r.QueueName = s.text(was.QueueName)
		case "queue_id":
			r.QueueID = s.text("")
		case "arrival_time":
			r.ArrivalTime = s.number()
		case "message_size":
			r.MessageSize = s.number()
		case "sender":
			r.Sender = s.text(was.Sender)
		case "recipients":
			s.failed = s.failed || r.Recipients != nil // twice
			r.Recipients = s.recipients(was.Recipients)
		case "account":
			r.Account = mail.Login(s.text(string(was.Account)))
		case "queue":
			r.Queue = s.text(was.Queue)
		case "attempts":
			r.Attempts = int(s.number())
		case "failures":
			r.Failures = int(s.number())
		case "next_attempt":
			r.NextAttempt = s.number()
		default:
			s.failed = true
		}
	})
	if !s.failed && len(s.rest) == 0 {
		return nil
	}
	*r = wire.QueueRow{}
	return json.Unmarshal(line, r)
}

// scanner reads JSON without spaces and escapes from the front of rest. After a
// failure it reads nothing more.
type scanner struct {
	rest   []byte
	failed bool
}

// eat takes one octet that must come next.
func (s *scanner) eat(c byte) {
	if s.failed || len(s.rest) == 0 || s.rest[0] != c {
		s.failed = true
		return
	}
	s.rest = s.rest[1:]
}

// more takes the comma before a next element, or the end of the list.
func (s *scanner) more(end byte) bool {
	if !s.failed && len(s.rest) > 0 && s.rest[0] == ',' {
		s.rest = s.rest[1:]
		return true
	}
	s.eat(end)
	return false
}

// object reads an object of one member or more.
func (s *scanner) object(member func(key []byte)) {
	s.eat('{')
	for more := !s.failed; more; more = s.more('}') {
		key := s.quoted()
		s.eat(':')
		member(key)
	}
}

func (s *scanner) quoted() []byte {
	s.eat('"')
	if s.failed {
		return nil
	}
	for i, c := range s.rest {
		if c == '"' {
			q := s.rest[:i]
			s.rest = s.rest[i+1:]
			return q
		}
		if c == '\\' || c < ' ' || c > '~' {
			break
		}
	}
	s.failed = true
	return nil
}

// text gives a string; one that is as before costs no memory.
func (s *scanner) text(before string) string {
	q := s.quoted()
	if string(q) == before {
		return before
	}
	return string(q)
}

// maxDigits are certain to fit.
const maxDigits = 18

// number reads a whole number that is not negative.
func (s *scanner) number() (n int64) {
	i := 0
	for i < len(s.rest) && '0' <= s.rest[i] && s.rest[i] <= '9' {
		n = 10*n + int64(s.rest[i]-'0')
		if i++; i > maxDigits {
			s.failed = true
			return 0
		}
	}
	if i == 0 || i > 1 && s.rest[0] == '0' {
		s.failed = true
	}
	if !s.failed {
		s.rest = s.rest[i:]
	}
	return n
}

func (s *scanner) recipients(before []wire.Recipient) []wire.Recipient {
	var was wire.Recipient
	if len(before) > 0 {
		was = before[0]
	}
	out := make([]wire.Recipient, 0, 1) // mostly
	if s.eat('['); len(s.rest) > 0 && s.rest[0] == ']' {
		s.eat(']')
		return out
	}
	for more := !s.failed; more; more = s.more(']') {
		var to wire.Recipient
		s.object(func(key []byte) {
			switch string(key) {
			case "address":
				to.Address = s.text(was.Address)
			case "delay_reason":
				to.DelayReason = s.text(was.DelayReason)
			default:
				s.failed = true
			}
		})
		out = append(out, to)
	}
	return out
}
