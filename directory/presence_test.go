package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

var (
	fixed   = netip.MustParseAddr("192.0.2.10")
	foreign = netip.MustParseAddr("198.51.100.7")
)

// line is the access network and the directory that listens to it.
type line struct {
	t   rapid.TB
	tx  kv.Tx
	now mail.Time

	life time.Duration // Limits.SessionLife; 0: sessions do not grow old
}

func openStore(t testing.TB) *kv.Store {
	t.Helper()
	s, err := kv.Open("db", kv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newLine knows jansen with one fixed address, and pietersen without any.
func newLine(t testing.TB) *line {
	tx := openStore(t).Begin()
	t.Cleanup(func() { tx.Discard() })
	w := &line{t: t, tx: tx, now: mail.At(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
	w.customer("jansen", fixed)
	w.customer("pietersen")
	return w
}

func (w *line) customer(login mail.Login, addresses ...netip.Addr) {
	a := Account{Login: login, Addresses: addresses}
	if err := w.tx.Set(accountKey(login), kv.Encode(a)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *line) wait(d time.Duration) { w.now = w.now.Add(d) }

func (w *line) hear(e Event) Seen {
	w.t.Helper()
	seen, err := e.Apply(w.tx, w.now, w.life)
	if err != nil {
		w.t.Fatalf("%+v: %v", e, err)
	}
	return seen
}

func (w *line) start(id string) Seen {
	return w.hear(Event{Kind: EventStart, Login: "jansen", Address: fixed, NAS: "nas1", Session: id, Source: "radius"})
}

func (w *line) interim(id string) Seen {
	return w.hear(Event{Kind: EventInterim, Login: "jansen", Address: fixed, NAS: "nas1", Session: id, Source: "radius"})
}

func (w *line) stop(id string) Seen {
	return w.hear(Event{Kind: EventStop, Login: "jansen", Address: fixed, NAS: "nas1", Session: id, Source: "radius"})
}

func (w *line) restart(kind EventKind, nas, id string) Seen {
	return w.hear(Event{Kind: kind, NAS: nas, Session: id, Source: "radius"})
}

func (w *line) hook(kind EventKind, a netip.Addr) Seen {
	return w.hear(Event{Kind: kind, Login: "jansen", Address: a, Source: "http"})
}

func (w *line) presence(login mail.Login) Presence {
	w.t.Helper()
	p, err := Reader{R: w.tx}.Presence(login, w.now, w.life)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func want(t rapid.TB, what string, got, want Seen) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: seen %+v, want %+v", what, got, want)
	}
}

func TestALoginIsSeenOnceAndItsStopEndsIt(t *testing.T) {
	w := newLine(t)
	want(t, "start", w.start("a"), Seen{Login: "jansen", Online: true, Triggers: true})
	want(t, "start again", w.start("a"), Seen{Login: "jansen", Online: true, Duplicate: true})
	w.wait(time.Minute)
	want(t, "interim", w.interim("a"), Seen{Login: "jansen", Online: true})
	want(t, "interim again", w.interim("a"), Seen{Login: "jansen", Online: true})
	if p := w.presence("jansen"); !p.Online || p.Since != w.now.Add(-time.Minute) || p.Sessions[0].Heard != w.now {
		t.Fatalf("presence %+v", p)
	}
	want(t, "stop", w.stop("a"), Seen{Login: "jansen"})
	want(t, "stop again", w.stop("a"), Seen{Login: "jansen", Duplicate: true})
	if p := w.presence("jansen"); p.Online || p.Since != w.now || len(p.Sessions) != 1 {
		t.Fatalf("presence %+v", p)
	}
	want(t, "next login", w.start("b"), Seen{Login: "jansen", Online: true, Triggers: true})
}

func TestALateStartDoesNotBringASessionBack(t *testing.T) {
	w := newLine(t)
	want(t, "stop overtakes", w.stop("a"), Seen{Login: "jansen"})
	want(t, "late start", w.start("a"), Seen{Login: "jansen", Duplicate: true})
	want(t, "late interim", w.interim("a"), Seen{Login: "jansen", Duplicate: true})
	w.wait(SessionMemory - 1*time.Microsecond)
	w.stop("other")
	want(t, "start on the same day", w.start("a"), Seen{Login: "jansen", Duplicate: true})
	w.wait(time.Microsecond)
	w.stop("third")
	want(t, "the ID is used again a day later", w.start("a"), Seen{Login: "jansen", Online: true, Triggers: true})
}

func TestAnInterimThatOvertakesItsStartTriggersInItsPlace(t *testing.T) {
	w := newLine(t)
	want(t, "interim first", w.interim("a"), Seen{Login: "jansen", Online: true, Triggers: true})
	want(t, "its start", w.start("a"), Seen{Login: "jansen", Online: true})
	want(t, "its start again", w.start("a"), Seen{Login: "jansen", Online: true, Duplicate: true})
}

func TestAnAccessServersRestartEndsItsSessionsOnly(t *testing.T) {
	w := newLine(t)
	w.start("a")
	w.hear(Event{Kind: EventStart, Login: "pietersen", NAS: "nas1", Session: "b"})
	w.hear(Event{Kind: EventStart, Login: "pietersen", NAS: "nas2", Session: "c"})
	want(t, "on", w.restart(EventOn, "nas1", "00000000"), Seen{Sessions: 2})
	want(t, "on again", w.restart(EventOn, "nas1", "00000000"), Seen{Duplicate: true})
	if w.presence("jansen").Online || !w.presence("pietersen").Online {
		t.Fatal("jansen must be offline and pietersen online at nas2")
	}
	// The same moment and the same ID: after a restart IDs begin anew.
	want(t, "start after on", w.start("a"), Seen{Login: "jansen", Online: true, Triggers: true})
	want(t, "off", w.restart(EventOff, "nas1", "00000000"), Seen{Sessions: 1})
	w.wait(RestartRepeated)
	want(t, "on, later, with the ID it always has", w.restart(EventOn, "nas1", "00000000"), Seen{})
	if p := w.presence("jansen"); p.Online || p.Doubles != 0 {
		t.Fatalf("presence %+v", p)
	}
}

func TestASecondSessionIsADoubleLogin(t *testing.T) {
	w := newLine(t)
	w.start("a")
	e := Event{Kind: EventStart, Login: "jansen", Address: fixed, NAS: "nas2", Session: "x"}
	want(t, "second", w.hear(e), Seen{Login: "jansen", Online: true, Triggers: true, Double: DoubleSession})
	want(t, "second again", w.hear(e), Seen{Login: "jansen", Online: true, Duplicate: true})
	p := w.presence("jansen")
	if p.Doubles != 1 || p.LastDouble != w.now || !strings.Contains(p.LastDoubleWhat, "nas1") || !strings.Contains(p.LastDoubleWhat, "nas2") {
		t.Fatalf("presence %+v", p)
	}
	want(t, "one stops", w.stop("a"), Seen{Login: "jansen", Online: true})
	e.Kind = EventStop
	want(t, "the other stops", w.hear(e), Seen{Login: "jansen"})
}

func TestAForeignAddressIsADoubleLogin(t *testing.T) {
	w := newLine(t)
	e := Event{Kind: EventStart, Login: "jansen", Address: foreign, NAS: "nas1", Session: "x"}
	want(t, "foreign", w.hear(e), Seen{Login: "jansen", Online: true, Triggers: true, Double: DoubleAddress})
	e.Kind = EventInterim
	want(t, "told once", w.hear(e), Seen{Login: "jansen", Online: true})
	e.Address = netip.MustParseAddr("::ffff:192.0.2.10")
	want(t, "its own", w.hear(e), Seen{Login: "jansen", Online: true})
	e.Address = foreign
	want(t, "moves away", w.hear(e), Seen{Login: "jansen", Online: true, Double: DoubleAddress})
	e.Address = netip.MustParseAddr("2001:db8::1")
	want(t, "a family without fixed address", w.hear(e), Seen{Login: "jansen", Online: true})
	if p := w.presence("jansen"); p.Doubles != 2 || !strings.Contains(p.LastDoubleWhat, "192.0.2.10") {
		t.Fatalf("presence %+v", p)
	}
	e = Event{Kind: EventStart, Login: "pietersen", Address: foreign, NAS: "nas1", Session: "y"}
	want(t, "no fixed address", w.hear(e), Seen{Login: "pietersen", Online: true, Triggers: true})
}

func TestAHookThatTellsTwiceMakesNoSecondSession(t *testing.T) {
	w := newLine(t)
	fresh := Seen{Login: "jansen", Online: true, Triggers: true}
	want(t, "first", w.hook(EventStart, fixed), fresh)
	want(t, "again", w.hook(EventStart, fixed), fresh)
	want(t, "without address", w.hook(EventStart, netip.Addr{}), fresh)
	want(t, "RADIUS tells too", w.start("a"), fresh)
	if p := w.presence("jansen"); len(p.Sessions) != 1 || p.Doubles != 0 {
		t.Fatalf("presence %+v", p)
	}
	double := fresh
	double.Double = DoubleSession
	want(t, "elsewhere", w.hook(EventStart, foreign), double)
	want(t, "elsewhere ends", w.hook(EventStop, foreign), Seen{Login: "jansen", Online: true})
	want(t, "all ends", w.hook(EventStop, netip.Addr{}), Seen{Login: "jansen"})
	want(t, "late", w.start("a"), Seen{Login: "jansen", Duplicate: true})
}

func TestAnUnknownLoginLeavesNothing(t *testing.T) {
	w := newLine(t)
	want(t, "nobody", w.hear(Event{Kind: EventStart, Login: "nobody", NAS: "nas1", Session: "a"}), Seen{Login: "nobody", Unknown: true})
	var err error
	for p := range (Reader{R: w.tx}).Presences("", w.now, w.life, &err) {
		t.Fatalf("presence %+v", p)
	}
	if n, err := readServer(w.tx, "nas1"); err != nil || n != (accessServer{}) {
		t.Fatalf("access server %+v %v", n, err)
	}
}

func TestSessionsOfALoginAreBounded(t *testing.T) {
	w := newLine(t)
	for i := range 3 * MaxSessions {
		w.wait(time.Second)
		w.start(fmt.Sprint(i))
	}
	p := w.presence("jansen")
	if len(p.Sessions) != MaxSessions || p.Sessions[0].ID != fmt.Sprint(2*MaxSessions) {
		t.Fatalf("%d sessions from %s", len(p.Sessions), p.Sessions[0].ID)
	}
	w.stop(fmt.Sprint(3*MaxSessions - 2))
	w.start("next")
	if p = w.presence("jansen"); p.live() != MaxSessions {
		t.Fatalf("an ended session must go before one that is online: %d online", p.live())
	}
	want(t, "restart counts what is remembered", w.restart(EventOff, "nas1", ""), Seen{Sessions: MaxSessions})
}

func TestEventsThatNoSourceMaySendAreRefused(t *testing.T) {
	w := newLine(t)
	for _, e := range []Event{
		{Login: "jansen"},
		{Kind: 6, Login: "jansen"},
		{Kind: EventOn},
		{Kind: EventStart, Login: "jansen", NAS: strings.Repeat("n", MaxNASName+1)},
		{Kind: EventStart, Login: "jansen", NAS: "n", Session: "\xff"},
	} {
		if _, err := e.Apply(w.tx, w.now, w.life); mail.KindOf(err) != mail.Invalid {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

func TestListingAndForgettingPresence(t *testing.T) {
	w := newLine(t)
	w.start("a")
	w.hear(Event{Kind: EventStart, Login: "pietersen", NAS: "nas1", Session: "b"})
	list := func(after mail.Login) (out []mail.Login) {
		var err error
		for p := range (Reader{R: w.tx}).Presences(after, w.now, w.life, &err) {
			out = append(out, p.Login)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := list(""); !slices.Equal(got, []mail.Login{"jansen", "pietersen"}) {
		t.Fatal(got)
	}
	if got := list("jansen"); !slices.Equal(got, []mail.Login{"pietersen"}) {
		t.Fatal(got)
	}
	for _, login := range []mail.Login{"jansen", "pietersen"} {
		if err := forgetPresence(w.tx, w.now, login); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for k := range w.tx.Scan([]byte("B"), []byte("z"), &err) {
		t.Errorf("row %q is left", k)
	}
}

// model is presence as one would explain it: sessions end when their access
// server restarts, at once.
type model struct {
	sessions map[string]*modelSession // by login, nas, id
	live     map[string][]string      // login: keys of sessions online
}

type modelSession struct {
	login, nas    string
	live, started bool
}

func (m *model) restart(nas string) (ended int) {
	for k, s := range m.sessions {
		if s.nas != nas {
			continue
		}
		if s.live {
			ended++
		}
		delete(m.sessions, k)
		m.live[s.login] = slices.DeleteFunc(m.live[s.login], func(l string) bool { return l == k })
	}
	return ended
}

func (m *model) hear(kind EventKind, login, nas, id string) Seen {
	k := login + "/" + nas + "/" + id
	s := m.sessions[k]
	seen := Seen{Login: mail.Login(login)}
	switch {
	case s != nil && (!s.live || kind == EventStart && s.started):
		seen.Duplicate = true
	case s == nil && kind == EventStop:
		m.sessions[k] = &modelSession{login: login, nas: nas}
	case s == nil:
		seen.Triggers = true
		if len(m.live[login]) > 0 {
			seen.Double = DoubleSession
		}
		m.sessions[k] = &modelSession{login, nas, true, kind == EventStart}
		m.live[login] = append(m.live[login], k)
	case kind == EventStop:
		s.live = false
		m.live[login] = slices.DeleteFunc(m.live[login], func(l string) bool { return l == k })
	case kind == EventStart:
		s.started = true
	}
	seen.Online = len(m.live[login]) > 0
	return seen
}

// Packets in any order, repeated at will, lead to what the model says. The
// numbers of servers and IDs keep a login below MaxSessions between restarts.
func TestPresenceFollowsItsModel(t *testing.T) {
	store := openStore(t)
	logins, servers, ids := []string{"jansen", "pietersen"}, []string{"nas1", "nas2"}, []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		tx := store.Begin()
		defer tx.Discard()
		w := &line{t: t, tx: tx, now: 1}
		w.customer("jansen")
		w.customer("pietersen")
		m := model{sessions: map[string]*modelSession{}, live: map[string][]string{}}
		restarts := 0
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			w.now += mail.Time(rapid.IntRange(0, 2).Draw(t, "later"))
			kind := EventKind(rapid.SampledFrom([]int{1, 1, 1, 2, 2, 3, 3, 4, 5}).Draw(t, "kind"))
			nas := rapid.SampledFrom(servers).Draw(t, "nas")
			if kind == EventOn || kind == EventOff {
				restarts++
				want(t, "restart", w.restart(kind, nas, fmt.Sprint(restarts)), Seen{Sessions: m.restart(nas)})
			} else {
				login, id := rapid.SampledFrom(logins).Draw(t, "login"), rapid.SampledFrom(ids).Draw(t, "id")
				e := Event{Kind: kind, Login: mail.Login(login), NAS: nas, Session: id}
				want(t, fmt.Sprintf("%+v", e), w.hear(e), m.hear(kind, login, nas, id))
			}
			for _, login := range logins {
				if p := w.presence(mail.Login(login)); p.Online != (len(m.live[login]) > 0) || p.live() != len(m.live[login]) {
					t.Fatalf("%s: %+v, the model has %v online", login, p, m.live[login])
				}
			}
		}
	})
}

func TestADelayedEventIsDatedBack(t *testing.T) {
	w := newLine(t)
	began := w.now
	w.start("1")
	w.wait(30 * time.Minute)
	stop := Event{Kind: EventStop, Login: "jansen", NAS: "nas1", Session: "1", Source: "radius", Delay: 10 * time.Minute}
	w.hear(stop)
	read := func() Presence {
		p, err := Reader{R: w.tx}.Presence("jansen", w.now, w.life)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := read(); p.Online || p.Since != w.now.Add(-10*time.Minute) || p.LastEvent != w.now || p.Sessions[0].Stopped != p.Since {
		t.Errorf("%+v", p)
	}
	w.start("2")
	stop.Session, stop.Delay = "2", 1<<62 // never before it began, and bounded
	w.hear(stop)
	if s := read().Sessions[1]; s.Stopped != s.Started || s.Started != began.Add(30*time.Minute) {
		t.Errorf("%+v", s)
	}
	w.wait(2 * time.Hour)
	w.hear(Event{Kind: EventStart, Login: "jansen", NAS: "nas1", Session: "3", Source: "radius", Delay: 24 * time.Hour})
	if s := read().Sessions[2]; s.Started != w.now.Add(-MaxDelay) {
		t.Errorf("%+v", s)
	}
}
