package machine

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/cluster"
	"bsmtpd/delivery"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/quota"
	"bsmtpd/spool"

	"github.com/cockroachdb/datadriven"
)

// The transcripts tell the cases that people want to read: each command, what it is
// answered, and what it asks for. A difference is looked at first; if it is meant:
// go test ./simtest/machine -rewrite
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{replica: newReplica("node", newMemory(), nil), clock: beginning,
			plan: delivery.NewPlan(delivery.PlanLimits{Sessions: 2, Background: 1, MaxWaiting: 10})}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}

// script is a machine and a planner that do what a transcript says.
type script struct {
	*replica
	clock mail.Time
	log   [][]byte
	ids   []mail.ID // of messages, in order: m1, m2, ...
	plan  *delivery.Plan
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "pass":
		by, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		s.clock = s.clock.Add(by)
		return "it is " + s.time(s.clock)
	case "queue":
		return s.queue(spool.QueueName(d.CmdArgs[0].Key))
	case "usage":
		u, err := quota.Of(s.store, mail.Login(d.CmdArgs[0].Key))
		must(err)
		return fmt.Sprintf("%d bytes in %d messages", u.Bytes, u.Messages)
	case "owed":
		return s.owed()
	case "schedule":
		return s.schedule()
	case "lose-row": // as a bug would
		q, _, err := s.spool().Queue(spool.QueueName(d.CmdArgs[0].Key))
		must(err)
		key := append([]byte("s/"), entry(q.Next)[1:9]...)
		must(s.store.(*memory).Delete(append(key, q.Name...)))
		return "its row in the schedule is gone"
	case "flush":
		s.flush()
		return fmt.Sprintf("rows are durable up to entry %d", s.m.Applied())
	case "crash":
		s.crash(nil)
		return fmt.Sprintf("rows end at entry %d, the log at %d", s.m.Applied(), len(s.log))
	case "replay":
		return s.replay()
	case "restore":
		other := newReplica("other", newMemory(), nil)
		other.restore(s.replica)
		return fmt.Sprintf("the other replica is at entry %d; equal rows: %v", other.m.Applied(), other.hash() == s.hash())
	case "next":
		return s.next()
	}
	return s.submit(s.proposal(t, d))
}

// submit brings one command into the log and tells what became of it.
func (s *script) submit(p proposal) string {
	e := entry(s.clock, p)
	s.log = append(s.log, e)
	replies, effects := s.apply(uint64(len(s.log)), e)
	r := replies[0]
	if out, ok := r.Value.(spool.Enqueued); ok && out.ID != 0 {
		s.ids = append(s.ids, out.ID)
	}
	text := fmt.Sprintf("entry %d: %s", len(s.log), s.reply(r))
	for _, e := range effects {
		kind := []string{"due", "owed", "stop"}[e.Kind]
		text += fmt.Sprintf("\n%s %s %s", kind, e.Queue, e.Cause)
		if e.Kind == spool.EffectDue {
			s.plan.Add(s.clock, delivery.PlanItem{Queue: e.Queue, Cause: e.Cause, At: s.clock})
		}
	}
	return s.names(strings.TrimRight(text, " "))
}

// reply is an answer without what is usual.
func (s *script) reply(r cluster.Reply) string {
	if r.Err != nil {
		return "refused: " + r.Err.Error()
	}
	switch v := r.Value.(type) {
	case spool.ClaimResult:
		if v.Denial == spool.Granted {
			return "granted for " + v.Cause.String()
		}
		return []string{"", "taken", "empty", "held", "not pushed"}[v.Denial]
	case spool.Enqueued:
		var parts []string
		for _, t := range v.Targets {
			parts = append(parts, []string{"accepted", "over quota", "no account"}[t.Refusal])
		}
		if v.ID == 0 {
			return strings.Join(parts, ", ") + ": nothing is kept"
		}
		return strings.Join(parts, ", ") + " as " + v.ID.String()
	case spool.Finished:
		if v.Stale {
			return "stale"
		}
		return fmt.Sprintf("%d left, next %s", v.Left, s.time(v.Next))
	case directory.Seen:
		return fmt.Sprintf("%s, %d queued", v.Outcome(), v.Queued)
	case []directory.Put:
		return fmt.Sprintf("version %d", v[0].Version)
	}
	var parts []string
	for f, v := range reflect.ValueOf(r.Value).Fields() {
		if !v.IsZero() {
			parts = append(parts, fmt.Sprintf("%s %v", strings.ToLower(f.Name), v))
		}
	}
	if parts == nil {
		return "done"
	}
	return strings.Join(parts, ", ")
}

// time is told as a distance from the beginning.
func (s *script) time(t mail.Time) string {
	if t == 0 {
		return "never"
	}
	return "+" + t.Sub(beginning).String()
}

// names puts short names in the place of IDs.
func (s *script) names(text string) string {
	for i, id := range s.ids {
		text = strings.ReplaceAll(text, id.String(), fmt.Sprintf("m%d", i+1))
	}
	return text
}

func (s *script) queue(name spool.QueueName) string {
	q, ok, err := s.spool().Queue(name)
	must(err)
	if !ok {
		return "no row"
	}
	text := fmt.Sprintf("%d messages, %d bytes, next %s", q.Messages, q.Bytes, s.time(q.Next))
	if q.Next != 0 {
		text += " (" + q.Cause.String() + ")"
	}
	if q.Failing {
		text += fmt.Sprintf(", failing (%d)", q.Failures)
	}
	if q.Debounced > 0 {
		text += fmt.Sprintf(", %d logins debounced", q.Debounced)
	}
	if q.Claim != nil {
		text += fmt.Sprintf("\nclaimed by session %d until %s", q.Claim.Session, s.time(q.Claim.Until))
	}
	if q.Hold != nil {
		text += "\nheld by " + q.Hold.By
	}
	for m := range s.spool().Messages(name, 0, &err) {
		text += fmt.Sprintf("\n%s", m.ID)
		for _, to := range m.To {
			text += fmt.Sprintf(" <%s>", to.Address)
			if to.Last.Code != 0 {
				text += fmt.Sprintf(" %d", to.Last.Code)
			}
		}
		if m.RetryAt != 0 {
			text += " not before " + s.time(m.RetryAt)
		}
		if m.Hold != nil {
			text += " held"
		}
	}
	must(err)
	return s.names(text)
}

func (s *script) owed() string {
	all, err := s.spool().Owed(spool.OwedKey{}, 100)
	must(err)
	var b strings.Builder
	for _, o := range all {
		fmt.Fprintf(&b, "%s to <%s>:", o.Key.ID, o.From)
		for _, to := range o.To {
			fmt.Fprintf(&b, " <%s> %d %s", to.Address, to.Reply.Code, to.Reply.Text)
		}
		b.WriteString("\n")
	}
	return s.names(b.String())
}

func (s *script) schedule() string {
	all, err := s.spool().Due(1<<62, 100)
	must(err)
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "%s %s %s\n", s.time(d.At), d.Queue, d.Cause)
	}
	n, err := s.spool().WithoutNext(s.clock)
	must(err)
	if n > 0 {
		fmt.Fprintf(&b, "%d queues without a next event\n", n)
	}
	return b.String()
}

// replay brings the whole log again, as a restart does.
func (s *script) replay() string {
	skipped, again := 0, 0
	for i, e := range s.log {
		if replies, _ := s.apply(uint64(i+1), e); replies == nil {
			skipped++
		} else {
			again++
		}
	}
	return fmt.Sprintf("%d entries skipped, %d applied", skipped, again)
}

// next is what the planner would start now.
func (s *script) next() string {
	var out []string
	for _, it := range s.plan.Next(s.clock) {
		out = append(out, fmt.Sprintf("%s for %s", it.Queue, it.Cause))
		s.plan.Done(it.Queue)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
