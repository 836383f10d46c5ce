package peers

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/api/wire"
)

// says checks how a command ends and that it prints a text, to either stream.
func (s *server) says(code int, want string, args ...string) string {
	s.t.Helper()
	return s.saysOf("", code, want, args...)
}

func (s *server) saysOf(in string, code int, want string, args ...string) string {
	s.t.Helper()
	r := s.piped(in, args...)
	if r.code != code || !strings.Contains(r.out+r.errs, want) {
		s.t.Errorf("bsmtpd %s: exit code %d, want %d and %q\n%s%s", strings.Join(args, " "), r.code, code, want, r.out, r.errs)
	}
	return r.out
}

// states counts the messages of an account by state, with all that were removed.
func (s *server) states(login string) map[string]int {
	s.t.Helper()
	n := map[string]int{}
	for _, state := range []string{"", "trash"} {
		args := []string{"queue", "list", "--account", login, "-o", "json"}
		if state != "" {
			args = append(args, "--state", state)
		}
		for line := range strings.Lines(s.cli(args...)) {
			var row wire.QueueRow
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				s.t.Fatalf("%q: %v", line, err)
			}
			n[row.QueueName]++
		}
	}
	return n
}

func (s *server) inStates(login, want string) {
	s.t.Helper()
	got := ""
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if got = fmt.Sprint(s.states(login)); got == "map["+want+"]" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("messages of %s by state: %s, want %s", login, got, want)
		}
	}
}

func TestAnOperatorLooksAfterTheQueue(t *testing.T) {
	t.Parallel()
	k := newSink(t)
	s := serve(t, nil)
	s.says(0, "account jansen added", "account", "add", "jansen", "--address", "192.0.2.10", "--route", "127.0.0.1:1", "--quota", "1MiB",
		"--plan", "paid", "--access", "isdn", "--contact", "jan@elsewhere.example", "--locale", "nl")
	s.says(0, "domain jansen.example added to account jansen", "domain", "add", "jansen.example", "--account", "jansen")
	s.customer("pietersen", k.addr)
	var ids []string
	c := call(t, s.smtp()).hello()
	for i := range 6 {
		l := text(fmt.Sprintf("letter %d", i), fmt.Sprintf("info%d@jansen.example", i))
		l.body = append(l.body, strings.Repeat("more\r\n", 100*i)...)
		ids = append(ids, taken(t, c.data(l)))
	}
	s.keeps("jansen", 6)

	s.says(0, ids[5], "queue", "list")
	s.says(0, "connection refused", "queue", "list", "--account", "jansen")
	s.says(0, "account/jansen", "queue", "summary")
	s.says(0, ids[3], "queue", "search", "--recipient", "info3@jansen.example")
	s.says(0, ids[5], "queue", "search", "--larger", "2KiB", "-q")
	s.says(3, "no message matches", "queue", "search", "--older", "3d")
	s.says(0, "info2@jansen.example", "queue", "show", ids[2])

	// Held mail is not tried; it is found, and let go.
	s.says(0, "2 messages held", "queue", "hold", ids[0], ids[1], "--reason", "a question")
	s.inStates("jansen", "deferred:4 hold:2")
	s.says(0, "a question", "queue", "show", ids[0])
	s.says(2, "say ALL as well", "queue", "release", "--state", "hold")
	s.says(0, "2 messages would be released", "queue", "release", "--state", "hold", "ALL", "--dry-run")
	found := s.cli("queue", "search", "--state", "hold", "-q")
	s.saysOf(found, 0, "2 messages released", "queue", "release", "-")
	s.inStates("jansen", "deferred:6")

	// What was removed can be brought back.
	s.says(0, "1 message removed", "queue", "remove", ids[2])
	s.says(3, "0 messages removed; 1 not there any more", "queue", "remove", ids[2])
	s.inStates("jansen", "deferred:5 trash:1")
	s.says(0, "1 message brought back", "queue", "requeue", ids[2])
	s.inStates("jansen", "deferred:6")

	// What is given up goes back to its sender.
	s.says(0, "1 message bounced", "queue", "bounce", "--recipient", "info4@jansen.example")
	if got := string(k.next().body); !strings.Contains(got, "info4@jansen.example") || !strings.Contains(got, "Action: failed") {
		t.Errorf("pietersen was not told: %s", got)
	}

	s.drained("pietersen")

	// Everything at once needs the word.
	s.says(2, "ALL for every message there is", "queue", "remove")
	s.says(0, "5 messages would be removed", "queue", "remove", "ALL", "--dry-run")

	s.suspended(k, c)
	s.audited()
}

// suspended delivery: mail is taken and kept, whatever is asked for, and pushed in
// order of arrival when it is resumed.
func (s *server) suspended(k *sink, c *caller) {
	s.t.Helper()
	s.says(0, "delivery of account/jansen suspended", "delivery", "suspend", "--account", "jansen", "--reason", "moving house")
	s.says(0, "moving house", "delivery", "list")
	s.says(0, "account jansen changed", "account", "set", "jansen", "--route", k.addr)
	taken(s.t, c.data(text("letter 6", "info6@jansen.example")))
	s.says(0, "", "queue", "retry", "--account", "jansen")
	s.inStates("jansen", "hold:6")
	k.none()
	s.says(0, "delivery of account/jansen resumed", "delivery", "resume", "account/jansen")
	s.cli("queue", "retry", "account/jansen")
	var got []string
	for range 6 {
		_, subject, _ := strings.Cut(string(k.next().body), "\r\nSubject: ")
		subject, _, _ = strings.Cut(subject, "\r\n")
		got = append(got, subject)
	}
	if want := []string{"letter 0", "letter 1", "letter 2", "letter 3", "letter 5", "letter 6"}; !slices.Equal(got, want) {
		s.t.Errorf("delivered %q, want %q", got, want)
	}
	s.drained("jansen")
	s.says(0, "nothing is queued", "queue", "list")
}

// audited checks that what an operator did can be read.
func (s *server) audited() {
	s.t.Helper()
	all := s.cli("audit", "list", "--limit", "0", "--values")
	for _, want := range []string{"account add", "domain add", "account set", "queue hold", "queue release", "queue remove", "queue requeue", "queue bounce",
		"delivery suspend", "delivery resume", "a question", "moving house"} {
		if !strings.Contains(all, want) {
			s.t.Errorf("the audit lacks %q:\n%s", want, all)
		}
	}
	set := s.cli("audit", "list", "--object", "account/jansen", "--action", "account set", "-o", "json")
	var r wire.AuditRecord
	if err := json.Unmarshal([]byte(set), &r); err != nil || r.By == "" || !strings.Contains(r.Before, "127.0.0.1:1") || !strings.Contains(r.After, "127.0.0.1") {
		s.t.Errorf("the change of the route: %s (%v)", set, err)
	}
}

// Old habits: the program called by other names.
func TestOldHabitsWork(t *testing.T) {
	t.Parallel()
	k := newSink(t)
	s := serve(t, nil)
	s.customer("jansen", "127.0.0.1:1")
	s.customer("devries", "127.0.0.1:1")
	bin := filepath.Dir(program(t))
	as := func(name string, args ...string) result {
		t.Helper()
		r := execute(t, "", append([]string{"/usr/bin/env", "BSMTPD_DATA=" + s.data, filepath.Join(bin, name)}, args...)...)
		if r.code != 0 {
			t.Errorf("%s %v: exit code %d: %s", name, args, r.code, r.errs)
		}
		return r
	}
	if got := as("mailq").out; got != "Mail queue is empty\n" {
		t.Errorf("mailq of nothing: %q", got)
	}
	one := taken(t, s.send(text("one", "info@jansen.example", "sales@jansen.example")))
	two := taken(t, s.send(text("two", "info@devries.example")))
	s.keeps("jansen", 1)
	s.keeps("devries", 1)
	got := as("mailq").out
	for _, want := range []string{"----Queue ID-----", one, two, "anna@pietersen.example\n", " sales@jansen.example\n", "connection refused)", " Kbytes in 2 Requests.\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("mailq lacks %q:\n%s", want, got)
		}
	}
	if again := as("sendmail", "-bp").out; again != got {
		t.Errorf("sendmail -bp differs from mailq:\n%s", again)
	}
	postqueueNames(t, as("mailq", "-j").out, one)

	s.cli("account", "set", "jansen", "devries", "--route", k.addr)
	as("sendmail", "-qRdevries.example")
	if d := k.next(); !strings.Contains(string(d.body), "Subject: two\r\n") {
		t.Errorf("-qR pushed %q", d.body)
	}
	s.drained("devries")
	k.none()
	as("sendmail", "-q")
	if d := k.next(); len(d.to) != 2 {
		t.Errorf("-q pushed for %q: several recipients of one message go in one transaction", d.to)
	}
	s.drained("jansen")
	r := execute(t, "To: x@y.example\n\nhello\n", filepath.Join(bin, "sendmail"), "x@y.example")
	if r.code != 2 || !strings.Contains(r.errs, "mail is taken by SMTP only") {
		t.Errorf("sendmail as a mailer: %+v", r)
	}
}

// postqueueNames checks that a row has what "postqueue -j" has, by name and type.
func postqueueNames(t *testing.T, lines, id string) {
	t.Helper()
	line := ""
	for l := range strings.Lines(lines) {
		if strings.Contains(l, id) {
			line = l
		}
	}
	var row map[string]any
	if err := json.Unmarshal([]byte(line), &row); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	to, _ := row["recipients"].([]any)
	if len(to) != 2 {
		t.Fatalf("recipients in %s", line)
	}
	first, _ := to[0].(map[string]any)
	for what, ok := range map[string]bool{
		"queue_name":              row["queue_name"] == "deferred",
		"queue_id":                row["queue_id"] == id,
		"arrival_time":            number(row["arrival_time"]) > float64(time.Now().Add(-time.Hour).Unix()),
		"message_size":            number(row["message_size"]) > 100,
		"sender":                  row["sender"] == "anna@pietersen.example",
		"recipients.address":      first["address"] == "info@jansen.example",
		"recipients.delay_reason": strings.Contains(fmt.Sprint(first["delay_reason"]), "refused"),
		"account (ours)":          row["account"] == "jansen",
		"attempts (ours)":         row["attempts"] != nil,
		"next_attempt (ours)":     number(row["next_attempt"]) > float64(time.Now().Unix()),
		"no name that Go made up": row["QueueID"] == nil,
	} {
		if !ok {
			t.Errorf("%s is not as postqueue -j has it: %s", what, line)
		}
	}
}

func number(v any) float64 {
	f, _ := v.(float64)
	return f
}

func TestExitCodesSayWhatHappened(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.customer("jansen", "127.0.0.1:1")
	for _, c := range []struct {
		code int
		want string
		args string
	}{
		{0, "account devries added", "account add devries --route mail.devries.example:2525"},
		{1, "devries", "account add devries"}, // it exists
		{3, "there is no account nobody", "account show nobody"},
		{3, "nobody", "account remove nobody"},
		{1, "domain", "account remove jansen"}, // it has a domain
		{1, "jansen", "domain add jansen.example --account devries"},
		{3, "nobody", "domain add new.example --account nobody"},
		{2, "is not an IP address", "account add smit --address 192.0.2.300"},
		{2, "use free, paid", "account add smit --plan gold"},
		{2, "is not a number from 1 to 65535", "account add smit --route mail.example:99999"},
		{2, "--account LOGIN", "domain add new.example"},
		{2, "LOGIN is missing", "account show"},
		{2, "there is no command", "queue delete"},
		{2, "did you mean", "queue lst"},
		{2, "unknown flag", "queue list --acount jansen"},
		{2, "use table or json", "queue list -o xml"},
		{2, "--event begin", "login send jansen --event begin"},
		{3, "there is no account nobody", "login send nobody"},
		{3, "not there any more", "queue retry 00000000VV000"},
		{2, "", "queue retry not-an-id"},
		{3, "", "queue hold --account jansen"},
		{3, "", "queue show 00000000VV000"},
		{0, "devries is offline", "login send devries --event stop"},
	} {
		s.says(c.code, c.want, strings.Fields(c.args)...)
	}
	s.stop()
	s.says(1, "start it with \"bsmtpd serve --data", "queue", "list")
	s.says(1, "", "login", "send", "jansen")
	s.start()
	s.works()
}
