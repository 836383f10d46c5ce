package simtest

import (
	"bytes"
	"fmt"
	"io"
	"regexp"

	"bsmtpd/spool"
)

// part is a letter's way to one recipient.
type part struct {
	letter int
	to     string
}

// survey is where everything is.
type survey struct {
	delivered map[part][]Delivery
	kept      map[part]int // in queues and mailboxes
	told      map[part]int // notifications of failure: owed, queued and delivered
	toldAgain map[part]int // those delivered whose record may have been lost
	trashed   map[part]int
}

func (w *World) survey() *survey {
	s := &survey{delivered: map[part][]Delivery{}, kept: map[part]int{}, told: map[part]int{}, toldAgain: map[part]int{}, trashed: map[part]int{}}
	for _, server := range w.servers {
		for _, d := range server.Got() {
			if d.From == "" {
				s.notified(d.Data, s.told)
				if w.unrecorded(d) {
					s.notified(d.Data, s.toldAgain)
				}
				continue
			}
			p := part{d.Letter, d.To}
			s.delivered[p] = append(s.delivered[p], d)
		}
	}
	rows := w.rows()
	for m := range w.messages() {
		if m.From.IsNull() {
			s.notified(w.body(m.Body), s.told)
			continue
		}
		for _, to := range m.To {
			s.kept[part{numberOf(string(m.From)), string(to.Address)}]++
		}
	}
	owed, err := rows.Owed(spool.OwedKey{}, 1<<20)
	w.ok("read what is owed", err)
	for _, o := range owed {
		for _, to := range o.To {
			if to.Action == spool.NotifyFailed {
				s.told[part{numberOf(string(o.From)), string(to.Address)}]++
			}
		}
	}
	for r := range rows.Trash(spool.Item{}, &err) {
		for _, to := range r.Message.To {
			s.trashed[part{numberOf(string(r.Message.From)), string(to.Address)}]++
		}
	}
	w.ok("read the trash", err)
	return s
}

// Summary is what happened, in one line.
func (w *World) Summary() string {
	taken, unsure, delivered, twice, dead := 0, 0, 0, 0, 0
	for _, l := range w.ledger.all() {
		taken += len(l.Copies())
		unsure += l.doubts()
	}
	for _, got := range w.survey().delivered {
		delivered += len(got)
		twice += len(got) - 1
	}
	for _, l := range w.gone {
		if l.dead.Load() {
			dead++
		}
	}
	return fmt.Sprintf("seed %d, %s: %d letters, %d times 250, %d of unknown outcome, %d deliveries, %d of them again, %d push sessions, %d starts, %d power failures",
		w.Seed, w.Now(), len(w.ledger.all()), taken, unsure, delivered, twice, len(w.journal.allAttempts()), len(w.gone)+1, dead)
}

func (w *World) rows() spool.Reader { return w.Node().Cluster().Spool() }

func (w *World) ok(what string, err error) {
	w.t.Helper()
	if err != nil {
		w.Fatalf("%s: %v", what, err)
	}
}

// messages gives every message in every queue.
func (w *World) messages() func(yield func(spool.Message) bool) {
	return func(yield func(spool.Message) bool) {
		var err, qerr error
		for q := range w.rows().Queues("", &qerr) {
			for m := range w.rows().Messages(q.Name, 0, &err) {
				if !yield(m) {
					return
				}
			}
			w.ok("read queue "+string(q.Name), err)
		}
		w.ok("read the queues", qerr)
	}
}

func (w *World) body(id spool.BodyID) []byte {
	r, err := w.rows().Body(id)
	w.ok("open a body", err)
	defer r.Close()
	b, err := io.ReadAll(r)
	w.ok("read a body", err)
	return b
}

var failedMatch = regexp.MustCompile(`(?s)Final-Recipient: rfc822; ?(\S+)\r\n(.*?)\r\n\r\n`)

// notified notes what a notification (RFC 3464) tells.
func (s *survey) notified(text []byte, in map[part]int) {
	n := numberIn(text)
	for _, m := range failedMatch.FindAllSubmatch(text, -1) {
		if bytes.Contains(m[0], []byte("Action: failed")) {
			in[part{n, string(m[1])}]++
		}
	}
}
