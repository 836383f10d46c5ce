package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// stocked is a town with mail of every sort; the IDs by a letter each.
func stocked(t *testing.T) (*town, map[string]string) {
	w := newTown(t)
	w.account("jansen", "192.0.2.10")
	w.account("pietersen")
	ids := map[string]string{
		"a": w.mail("account/jansen", "alice@news.example", "x@jansen.example", 1000, 3*time.Hour),
		"b": w.mail("account/jansen", "Bob@shop.example", "info@jansen.example", 5000, 50*time.Minute),
		"c": w.mail("account/jansen", "", "x@jansen.example", 200, time.Minute),
		"d": w.mail("account/pietersen", "alice@news.example", "p@pietersen.example", 1000, 26*time.Hour),
		"e": w.mail("mailbox/jansen", "carol@x.example", "jansen@provider.example", 300, time.Hour),
		"f": w.mail("out/far.example", "jansen@jansen.example", "z@far.example", 400, 2*time.Hour),
	}
	w.attempt("account/jansen", "connection refused", 40*time.Minute)
	return w, ids
}

// letters gives the messages of a list by their letters.
func letters(ids map[string]string, rows []wire.QueueRow) string {
	var out []string
	for _, r := range rows {
		for k, id := range ids {
			if id == r.QueueID {
				out = append(out, k)
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func TestMessagesAreFoundByWhatIsKnownOfThem(t *testing.T) {
	w, ids := stocked(t)
	run(t, w.admin.HoldQueue(w.ctx(), "account/pietersen", wire.QueueHold{Reason: "asked"}))
	if _, err := w.admin.Act(w.ctx(), wire.Action{Action: "hold", IDs: []string{ids["b"]}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.apply(func(m *spool.Moves) error {
		_, err := m.Claim(spool.Claim{Queue: "out/far.example", Node: "n2", Session: 1, Until: m.Now.Add(time.Hour), Cause: spool.CauseNew})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f    wire.Filter
		want string
	}{
		{wire.Filter{}, "abcdef"},
		{wire.Filter{Account: "jansen"}, "abce"},
		{wire.Filter{Queue: "account/jansen"}, "abc"},
		{wire.Filter{Queue: "out/far.example"}, "f"},
		{wire.Filter{Account: "nobody"}, ""},
		{wire.Filter{Domain: "Jansen.Example"}, "abc"},
		{wire.Filter{Domain: "far.example"}, "f"},
		{wire.Filter{Sender: "bob@SHOP.example"}, "b"},
		{wire.Filter{Sender: "@news.example"}, "ad"},
		{wire.Filter{Sender: "<>"}, "c"},
		{wire.Filter{Sender: "*o*.example"}, "be"},
		{wire.Filter{Recipient: "x@jansen.example"}, "ac"},
		{wire.Filter{Recipient: "info@*"}, "b"},
		{wire.Filter{MinAge: "1h30m"}, "adf"},
		{wire.Filter{MinAge: "1d"}, "d"},
		{wire.Filter{MaxAge: "10m"}, "c"},
		{wire.Filter{MinSize: 1000, MaxSize: 1000}, "ad"},
		{wire.Filter{State: "mailbox"}, "e"},
		{wire.Filter{State: "hold"}, "bd"},
		{wire.Filter{State: "active"}, "f"},
		{wire.Filter{State: "deferred"}, "ac"},
		{wire.Filter{State: "trash"}, ""},
		{wire.Filter{Account: "jansen", Sender: "@news.example", MinAge: "1h"}, "a"},
	} {
		rows := collect(t, w.admin.Messages(w.ctx(), c.f, client.Page{}))
		if got := letters(ids, rows); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.f, got, c.want)
		}
	}
}

func run(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAMessageRowHasTheNamesOfPostqueue(t *testing.T) {
	w, ids := stocked(t)
	rows := collect(t, w.admin.Messages(w.ctx(), wire.Filter{Queue: "account/jansen"}, client.Page{}))
	if rows[0].QueueID != ids["a"] || rows[2].QueueID != ids["c"] {
		t.Fatal("not in order of arrival")
	}
	a, c := rows[0], rows[2]
	if a.QueueName != "deferred" || a.MessageSize != 1000 || a.Sender != "alice@news.example" || a.Account != "jansen" ||
		a.Recipients[0] != (wire.Recipient{Address: "x@jansen.example", DelayReason: "connection refused"}) ||
		time.Since(time.Unix(a.ArrivalTime, 0)).Round(time.Minute) != 3*time.Hour || a.NextAttempt == 0 || a.Failures != 1 || c.Failures != 0 { // c came after the attempt
		t.Fatalf("%+v, %+v", a, c)
	}
	if c.Sender != wire.NullSender {
		t.Fatalf("%+v", c)
	}
	_, text := w.rawAdmin("GET", wire.Prefix+"/messages?limit=1", "")
	for _, name := range []string{"queue_name", "queue_id", "arrival_time", "message_size", "sender", "recipients", "address", "delay_reason", "account", "attempts", "next_attempt"} {
		if !strings.Contains(text, `"`+name+`"`) {
			t.Errorf("no %s in %s", name, text)
		}
	}
}

func TestASearchGoesOnAfterACursor(t *testing.T) {
	w, ids := stocked(t)
	var all, paged []wire.QueueRow
	all = collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{}))
	after := ""
	for {
		part := collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{After: after, Limit: 2}))
		paged = append(paged, part...)
		if len(part) < 2 {
			break
		}
		after = part[1].Queue + ":" + part[1].QueueID
	}
	if fmt.Sprint(all) != fmt.Sprint(paged) || letters(ids, all) != "abcdef" {
		t.Fatalf("%v\n%v", all, paged)
	}
}

func TestALongQueueIsReadInPages(t *testing.T) {
	w := newTown(t)
	w.account("jansen")
	const n = 2*pageRows + 7
	for range n {
		w.mail("account/jansen", "a@b.example", "x@jansen.example", 100, 0)
	}
	if got := len(collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{}))); got != n {
		t.Fatal(got)
	}
	if got := len(collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{Limit: pageRows + 1}))); got != pageRows+1 {
		t.Fatal(got)
	}
}

func TestTheSummaryCountsByAge(t *testing.T) {
	w, _ := stocked(t)
	w.limits.Quota = 62_000
	var got []string
	for _, q := range collect(t, w.admin.Queues(w.ctx(), true, false, client.Page{})) {
		got = append(got, fmt.Sprint(q.Queue, q.Messages, q.Bytes, q.Ages, q.QuotaPercent, q.LastWords))
	}
	want := []string{
		"account/jansen 3 6200 [1 0 0 0 1 0 1 0 0 0] 10.4 connection refused",
		"account/pietersen 1 1000 [0 0 0 0 0 0 0 0 0 1] 1.6 ",
		"mailbox/jansen 1 300 [0 0 0 0 1 0 0 0 0 0] 10.4 ",
		"out/far.example 1 400 [0 0 0 0 0 1 0 0 0 0] 0 ",
	}
	for i := range want {
		if i >= len(got) || strings.ReplaceAll(got[i], " ", "") != strings.ReplaceAll(want[i], " ", "") {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	one, err := w.admin.Queue(w.ctx(), "account/jansen")
	if err != nil || time.Since(one.Oldest).Round(time.Minute) != 3*time.Hour || one.NextCause != "timer" {
		t.Fatalf("%+v %v", one, err)
	}
	_, err = w.admin.Queue(w.ctx(), "account/nobody")
	wantKind(t, err, mail.NotFound, "nobody")
}

func TestActionsByIDAndTheirUndoing(t *testing.T) {
	w, ids := stocked(t)
	act := func(action string, letters ...string) wire.Progress {
		t.Helper()
		a := wire.Action{Action: action, Reason: "test"}
		for _, l := range letters {
			a.IDs = append(a.IDs, ids[l])
		}
		p, err := w.admin.Act(w.ctx(), a, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	state := func(letter string) string {
		m, err := w.admin.Message(w.ctx(), ids[letter])
		if err != nil {
			return mail.KindOf(err).String()
		}
		return m.Rows[0].QueueName
	}
	if p := act("hold", "a", "b", "a"); p.Seen != 2 || p.Done != 2 || state("a") != "hold" {
		t.Fatal(p, state("a"))
	}
	if p := act("release", "a"); p.Done != 1 || state("a") != "deferred" {
		t.Fatal(p, state("a"))
	}
	if p := act("remove", "a", "e"); p.Done != 2 || state("a") != "trash" || state("e") != "trash" {
		t.Fatal(p, state("a"))
	}
	m, _ := w.admin.Message(w.ctx(), ids["a"])
	if r := m.Rows[0].Removed; r == nil || r.Reason != "test" || r.Until.IsZero() {
		t.Fatalf("%+v", m.Rows[0])
	}
	if p := act("remove", "a"); p.Missing != 1 || p.Done != 0 {
		t.Fatal(p)
	}
	if p := act("requeue", "a", "b"); p.Done != 1 || p.Missing != 1 || state("a") != "deferred" {
		t.Fatal(p, state("a"))
	}
	if p := act("bounce", "a"); p.Done != 1 || state("a") != "not-found" {
		t.Fatal(p, state("a"))
	}
	owed, err := w.Spool().Owed(spool.OwedKey{}, 10)
	if err != nil || len(owed) != 1 || owed[0].From != "alice@news.example" {
		t.Fatal(owed, err)
	}
	if p := act("retry", "d"); p.Done != 1 {
		t.Fatal(p)
	}
	recs := collect(t, w.admin.Audit(w.ctx(), client.AuditFilter{Action: "queue remove"}, client.Page{}))
	if len(recs) != 1 || recs[0].Reason != "test" || recs[0].By != SocketName {
		t.Fatalf("%+v", recs)
	}
}

func TestActionsByFilterCountExactlyAndActOnThat(t *testing.T) {
	w := newTown(t)
	w.account("jansen")
	w.account("pietersen")
	const n = 2*spool.MaxItems + 30
	for range n {
		w.mail("account/jansen", "spam@bad.example", "x@jansen.example", 50, time.Hour)
	}
	w.mail("account/pietersen", "spam@bad.example", "x@pietersen.example", 50, time.Hour)
	w.mail("account/jansen", "good@good.example", "x@jansen.example", 50, time.Hour)
	f := &wire.Filter{Account: "jansen", Sender: "@bad.example"}
	dry, err := w.admin.Act(w.ctx(), wire.Action{Action: "remove", Filter: f, DryRun: true}, nil)
	if err != nil || dry.Done != n || !dry.DryRun {
		t.Fatal(dry, err)
	}
	if got := len(collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{}))); got != n+2 {
		t.Fatalf("the dry run removed: %d left", got)
	}
	done, err := w.admin.Act(w.ctx(), wire.Action{Action: "remove", Filter: f}, nil)
	if err != nil || done.Done != n {
		t.Fatal(done, err)
	}
	if got := len(collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{}))); got != 2 {
		t.Fatal(got)
	}
	back, err := w.admin.Act(w.ctx(), wire.Action{Action: "requeue", Filter: f}, nil)
	if err != nil || back.Done != n {
		t.Fatal(back, err)
	}
	all, err := w.admin.Act(w.ctx(), wire.Action{Action: "hold", All: true}, nil)
	if err != nil || all.Done != n+2 {
		t.Fatal(all, err)
	}
	var said []string
	for _, r := range collect(t, w.admin.Audit(w.ctx(), client.AuditFilter{Action: "queue"}, client.Page{})) {
		_, chosen, _ := strings.Cut(r.Object, " ")
		said = append(said, r.Action+" "+chosen)
	}
	const mine = "account=jansen sender=@bad.example"
	for _, want := range []string{"queue remove " + mine, "queue requeue " + mine, "queue hold ALL"} {
		if !slices.Contains(said, want) {
			t.Errorf("no record of %q in %q", want, slices.Compact(said))
		}
	}
	_, err = w.admin.Act(w.ctx(), wire.Action{Action: "remove", Filter: &wire.Filter{State: "hold"}}, nil)
	wantKind(t, err, mail.Invalid, "every message of every account")
	_, err = w.admin.Act(w.ctx(), wire.Action{Action: "remove", Filter: &wire.Filter{State: "trash", Account: "jansen"}}, nil)
	wantKind(t, err, mail.Invalid, "requeue is for removed mail")
}

func TestMailOnTheWireIsNotActedOn(t *testing.T) {
	w, ids := stocked(t)
	id, _ := mail.ParseID(ids["b"])
	w.busy[id] = true
	var texts []string
	p, err := w.admin.Act(w.ctx(), wire.Action{Action: "remove", Filter: &wire.Filter{Queue: "account/jansen"}}, func(p wire.Progress) { texts = append(texts, p.Errors...) })
	if err != nil || p.Done != 2 || p.Failed != 1 || len(texts) != 1 || !strings.Contains(texts[0], ids["b"]) {
		t.Fatal(p, err, texts)
	}
}

func TestAnActionThatCannotBeCommittedSaysHowFarItCame(t *testing.T) {
	w, _ := stocked(t)
	w.fail = &mail.Error{Kind: mail.Unavailable, Err: errors.New("no leader")}
	_, err := w.admin.Act(w.ctx(), wire.Action{Action: "hold", All: true}, nil)
	wantKind(t, err, mail.Unavailable, "stopped after 0 messages: no leader")
}

func TestAMessageIsShown(t *testing.T) {
	w, ids := stocked(t)
	m, err := w.admin.Message(w.ctx(), strings.ToLower(ids["a"]))
	if err != nil || len(m.Rows) != 1 || m.Rows[0].Queue != "account/jansen" || m.Queues[0].LastWords != "connection refused" {
		t.Fatal(m, err)
	}
	var text, headers strings.Builder
	run(t, w.admin.Body(w.ctx(), &text, ids["a"], false))
	run(t, w.admin.Body(w.ctx(), &headers, ids["a"], true))
	if len(text.String()) != 1000 || !strings.HasSuffix(text.String(), "xxx") || headers.String() != "Subject: test\r\n\r\n" {
		t.Fatalf("%d bytes; headers %q", text.Len(), headers.String())
	}
	_, err = w.admin.Message(w.ctx(), mail.NewID(999, 0).String())
	wantKind(t, err, mail.NotFound, "it was delivered")
	wantKind(t, w.admin.Body(w.ctx(), &text, mail.NewID(999, 0).String(), false), mail.NotFound, "it was delivered")
}

func TestWholeQueuesAreHeldReleasedAndTried(t *testing.T) {
	w, _ := stocked(t)
	run(t, w.admin.HoldQueue(w.ctx(), "account/jansen", wire.QueueHold{Reason: "moving house"}))
	q, err := w.admin.Queue(w.ctx(), "account/jansen")
	if err != nil || q.Hold == nil || q.Hold.Reason != "moving house" || q.Hold.By != SocketName {
		t.Fatal(q, err)
	}
	if tr, err := w.admin.RetryQueue(w.ctx(), "account/jansen"); err != nil || tr.State != "held" {
		t.Fatal(tr, err)
	}
	run(t, w.admin.ReleaseQueue(w.ctx(), "account/jansen"))
	if tr, err := w.admin.RetryQueue(w.ctx(), "account/jansen"); err != nil || tr != (wire.Triggered{Messages: 3, State: "due"}) {
		t.Fatal(tr, err)
	}
	_, err = w.admin.RetryQueue(w.ctx(), "mailbox/jansen")
	wantKind(t, err, mail.Invalid, "never pushed")
	wantKind(t, w.admin.HoldQueue(w.ctx(), "account/nobody", wire.QueueHold{}), mail.NotFound, "nobody")
	// A held queue can be ended even where nothing was ever queued.
	w.account("new")
	run(t, w.admin.HoldQueue(w.ctx(), "account/new", wire.QueueHold{}))

	p, err := w.admin.RetryQueues(w.ctx(), wire.QueueRetry{All: true}, nil)
	if err != nil || p.Seen != 3 || p.Done != 3 {
		t.Fatal(p, err)
	}
	p, err = w.admin.RetryQueues(w.ctx(), wire.QueueRetry{Queues: []string{"account/pietersen", "account/new"}}, nil)
	if err != nil || p.Done != 1 {
		t.Fatal(p, err)
	}
	_, err = w.admin.RetryQueues(w.ctx(), wire.QueueRetry{}, nil)
	wantKind(t, err, mail.Invalid, "name queues")
}

func TestDeliveryIsSuspendedAndResumed(t *testing.T) {
	w, _ := stocked(t)
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	run(t, w.admin.Suspend(w.ctx(), wire.Suspension{Scope: "all", Reason: "works on the line", Until: until}))
	run(t, w.admin.Suspend(w.ctx(), wire.Suspension{Scope: "account/jansen"}))
	list, err := w.admin.Suspensions(w.ctx())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	i := slices.IndexFunc(list, func(s wire.Suspension) bool { return s.Scope == "all" })
	if s := list[i]; s.Reason != "works on the line" || !s.Until.Equal(until) || s.By != SocketName || s.At.IsZero() {
		t.Fatalf("%+v", s)
	}
	rows := collect(t, w.admin.Messages(w.ctx(), wire.Filter{Account: "pietersen"}, client.Page{}))
	if rows[0].QueueName != "hold" {
		t.Fatal(rows)
	}
	run(t, w.admin.Resume(w.ctx(), "all"))
	run(t, w.admin.Resume(w.ctx(), "account/jansen"))
	wantKind(t, w.admin.Resume(w.ctx(), "all"), mail.NotFound, "not suspended")
	wantKind(t, w.admin.Suspend(w.ctx(), wire.Suspension{Scope: "account/nobody"}), mail.NotFound, "nobody")
	wantKind(t, w.admin.Suspend(w.ctx(), wire.Suspension{Scope: "mailbox/jansen"}), mail.Invalid, "never pushed")
}

// After the server's clock was wrong the spool's time is ahead. An hour of the
// operator's clock is an hour all the same.
func TestASuspensionForAnHourWhileTheSpoolIsADayAhead(t *testing.T) {
	w, _ := stocked(t)
	w.ahead = 24 * time.Hour
	run(t, w.admin.Suspend(w.ctx(), wire.Suspension{Scope: "all", Until: time.Now().Add(time.Hour)}))
	row := func() string {
		return collect(t, w.admin.Messages(w.ctx(), wire.Filter{Account: "pietersen"}, client.Page{}))[0].QueueName
	}
	if row() != "hold" {
		t.Fatal("it is over at once")
	}
	w.ahead += 2 * time.Hour
	if row() == "hold" {
		t.Fatal("it is in force after two hours")
	}
}

func TestTheStatusCountsWhatIsWaiting(t *testing.T) {
	w, _ := stocked(t)
	st, err := w.admin.Status(w.ctx())
	if err != nil || st.Messages != 6 || st.Queues != 4 || st.Bytes != 7900 || st.Failing != 1 || !st.Ready || st.Version != "test" {
		t.Fatalf("%+v %v", st, err)
	}
	w.notReady = []string{"low space"}
	if st, _ = w.admin.Status(w.ctx()); st.Ready || st.Reasons[0] != "low space" {
		t.Fatalf("%+v", st)
	}
}

func TestMailThatComesAfterAnActionBeganIsNotActedOn(t *testing.T) {
	w := newTown(t)
	w.account("jansen")
	w.mail("account/jansen", "a@b.example", "x@jansen.example", 50, time.Minute)
	w.mail("account/jansen", "", "x@jansen.example", 50, -time.Hour) // such as the notification of a bounce
	// The log's clock may be ahead of this one's: such mail is there all the same.
	if rows := collect(t, w.admin.Messages(w.ctx(), wire.Filter{}, client.Page{})); len(rows) != 2 {
		t.Fatal(rows)
	}
	p, err := w.admin.Act(w.ctx(), wire.Action{Action: "bounce", Filter: &wire.Filter{Account: "jansen"}}, nil)
	if err != nil || p.Seen != 1 || p.Done != 1 {
		t.Fatal(p, err)
	}
}
