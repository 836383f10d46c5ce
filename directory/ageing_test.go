package directory

import (
	"strings"
	"testing"
	"time"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

const twoDays = 48 * time.Hour

// newOldLine is a line on which sessions grow old.
func newOldLine(t *testing.T) *line {
	w := newLine(t)
	w.life = twoDays
	return w
}

// counted is how many sessions an access server's restart would end.
func (w *line) counted(nas string) int {
	w.t.Helper()
	s, err := readServer(w.tx, nas)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Live
}

func TestASessionWhoseStopWasLostGrowsOld(t *testing.T) {
	w := newOldLine(t)
	began := w.now
	w.start("a")
	w.wait(time.Hour)
	w.interim("a")
	w.wait(twoDays - time.Microsecond)
	if p := w.presence("jansen"); !p.Online {
		t.Fatalf("too early: %+v", p)
	}
	w.wait(time.Microsecond)
	p := w.presence("jansen")
	if p.Online || p.Since != w.now || p.Sessions[0].Stopped != w.now {
		t.Errorf("presence %+v", p)
	}
	if s, missed := p.Missed(); !missed || s.Heard != began.Add(time.Hour) {
		t.Errorf("missed %v %+v", missed, s)
	}
	w.life = 0
	if p := w.presence("jansen"); !p.Online {
		t.Errorf("0 is for ever: %+v", p)
	}
}

func TestAnOldSessionIsNoDoubleLoginAndGoesInTheEnd(t *testing.T) {
	w := newOldLine(t)
	w.start("lost")
	w.wait(twoDays)
	want(t, "the next login", w.start("b"), Seen{Login: "jansen", Online: true, Triggers: true})
	if n := w.counted("nas1"); n != 1 {
		t.Errorf("a restart would end %d sessions", n)
	}
	w.wait(SessionMemory)
	want(t, "it stops", w.stop("b"), Seen{Login: "jansen"})
	if p := w.presence("jansen"); len(p.Sessions) != 1 || p.Sessions[0].ID != "b" {
		t.Errorf("the old one is left: %+v", p)
	} else if _, missed := p.Missed(); missed {
		t.Errorf("a Stop was heard: %+v", p)
	}
	if n := w.counted("nas1"); n != 0 {
		t.Errorf("a restart would end %d sessions", n)
	}
}

func TestAnInterimUpdateTakesBackThatASessionIsOver(t *testing.T) {
	w := newOldLine(t)
	w.start("a")
	w.wait(twoDays)
	want(t, "interim", w.interim("a"), Seen{Login: "jansen", Online: true})
	if p := w.presence("jansen"); !p.Online || p.Sessions[0].Missed || w.counted("nas1") != 1 {
		t.Errorf("%+v, %d counted", p, w.counted("nas1"))
	}
	w.wait(twoDays)
	w.hear(Event{Kind: EventStart, Login: "jansen", Address: fixed, NAS: "nas2", Session: "x"})
	want(t, "interim beside another", w.interim("a"), Seen{Login: "jansen", Online: true, Double: DoubleSession})
	if p := w.presence("jansen"); p.Doubles != 1 || !strings.Contains(p.LastDoubleWhat, "nas2") {
		t.Errorf("%+v", p)
	}
}

func TestALateStopAndAnotherStartOfAnOldSession(t *testing.T) {
	w := newOldLine(t)
	w.start("a")
	w.wait(twoDays + time.Hour)
	want(t, "stop", w.stop("a"), Seen{Login: "jansen"})
	if s := w.presence("jansen").Sessions[0]; s.Missed || s.Stopped != w.now {
		t.Errorf("%+v", s)
	}
	want(t, "stop again", w.stop("a"), Seen{Login: "jansen", Duplicate: true})
	w.start("b")
	w.wait(twoDays)
	want(t, "the ID is used again", w.start("b"), Seen{Login: "jansen", Online: true, Triggers: true})
	want(t, "and repeated", w.start("b"), Seen{Login: "jansen", Online: true, Duplicate: true})
	if n := w.counted("nas1"); n != 1 {
		t.Errorf("a restart would end %d sessions", n)
	}
}

func TestARestartEndsWhatHadNotGrownOldBefore(t *testing.T) {
	w := newOldLine(t)
	w.start("a")
	old := w.now.Add(twoDays)
	w.wait(twoDays + time.Hour)
	w.hear(Event{Kind: EventStart, Login: "pietersen", NAS: "nas1", Session: "b"})
	w.restart(EventOn, "nas1", "")
	if p := w.presence("jansen"); p.Online || !p.Sessions[0].Missed || p.Since != old {
		t.Errorf("jansen %+v", p)
	}
	if p := w.presence("pietersen"); p.Online || p.Sessions[0].Missed || p.Since != w.now {
		t.Errorf("pietersen %+v", p)
	}
	want(t, "interim of a session before the restart", w.interim("a"), Seen{Login: "jansen", Online: true, Triggers: true})
}

func (w *line) spoil(key []byte) {
	w.t.Helper()
	if err := w.tx.Set(key, []byte{0xff}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *line) aside(key []byte) {
	w.t.Helper()
	v, err := w.tx.Get(append([]byte(kv.AsidePrefix), key...))
	if err != nil || v == nil {
		w.t.Fatalf("row %q was not set aside: %v", key, err)
	}
	var a kv.Aside
	if err := kv.Decode(v, &a); err != nil || string(a.Value) != "\xff" || mail.Time(a.At) != w.now || a.Why == "" {
		w.t.Errorf("%+v, %v", a, err)
	}
}

func TestADamagedPresenceIsBegunAnew(t *testing.T) {
	w := newOldLine(t)
	w.start("a")
	w.spoil(presenceKey("jansen"))
	if _, err := (Reader{R: w.tx}).Presence("jansen", w.now, w.life); mail.KindOf(err) != mail.Broken || !strings.Contains(err.Error(), "the next login event") {
		t.Errorf("read: %v", err)
	}
	seen := w.start("b")
	if !strings.Contains(seen.Mended, "P/jansen") {
		t.Errorf("told %q", seen.Mended)
	}
	seen.Mended = ""
	want(t, "start", seen, Seen{Login: "jansen", Online: true, Triggers: true})
	w.aside(presenceKey("jansen"))
	want(t, "and all is well", w.stop("b"), Seen{Login: "jansen"})
	w.spoil(presenceKey("jansen"))
	if err := forgetPresence(w.tx, w.now, "jansen"); err != nil {
		t.Error(err)
	}
}

func TestADamagedAccessServerCountsAsRestarted(t *testing.T) {
	w := newOldLine(t)
	w.restart(EventOn, "nas1", "") // its sessions have a count above 0
	w.start("a")
	w.hear(Event{Kind: EventStart, Login: "pietersen", NAS: "nas1", Session: "b"})
	w.spoil(serverKey("nas1"))
	if p := w.presence("pietersen"); !p.Online {
		t.Errorf("who only reads knows of no restart: %+v", p)
	}
	w.wait(time.Hour)
	seen := w.interim("a")
	if !strings.Contains(seen.Mended, "p/nas1") {
		t.Errorf("told %q", seen.Mended)
	}
	seen.Mended = ""
	want(t, "interim", seen, Seen{Login: "jansen", Online: true, Triggers: true})
	w.aside(serverKey("nas1"))
	if p := w.presence("pietersen"); p.Online || p.Since != w.now {
		t.Errorf("pietersen %+v", p)
	}
	want(t, "interim", w.hear(Event{Kind: EventInterim, Login: "pietersen", NAS: "nas1", Session: "b"}), Seen{Login: "pietersen", Online: true, Triggers: true})
	if n := w.counted("nas1"); n != 2 {
		t.Errorf("a restart would end %d sessions", n)
	}
	w.spoil(serverKey("nas1"))
	if seen := w.restart(EventOff, "nas1", ""); seen.Mended == "" || seen.Sessions != 0 || w.presence("jansen").Online {
		t.Errorf("off: %+v", seen)
	}
	w.start("c")
	w.spoil(serverKey("nas1"))
	if err := forgetPresence(w.tx, w.now, "jansen"); err != nil {
		t.Error(err)
	}
}
