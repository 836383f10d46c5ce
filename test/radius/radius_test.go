package radius

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const secret = "testing123"

func TestRadclientTellsALifeOfASession(t *testing.T) {
	t.Parallel()
	o := open(t)
	for _, r := range []string{
		record("Start", ""), record("Start", ""), record("Interim-Update", ""),
		record("Stop", ""), record("Start", ",Acct-Delay-Time=9"),
	} {
		if !send(t, o.address, secret, r) {
			t.Fatalf("no answer to %s", r)
		}
	}
	o.until("start jansen", "start jansen again", "interim jansen", "stop jansen", "start jansen again")
	if p := o.presence(); p.Online || len(p.Sessions) != 1 || p.Sessions[0].Address.String() != "192.0.2.10" {
		t.Errorf("presence %+v", p)
	}
}

func TestRadclientRestartsAnAccessServer(t *testing.T) {
	t.Parallel()
	o := open(t)
	for _, r := range []string{record("Start", ""), record("Accounting-Off", ""), record("Accounting-On", ""), record("Start", "")} {
		if !send(t, o.address, secret, r) {
			t.Fatalf("no answer to %s", r)
		}
	}
	o.until("start jansen", "off", "on", "start jansen")
	if p := o.presence(); !p.Online || p.Doubles != 0 {
		t.Errorf("presence %+v", p)
	}
}

func TestAWrongSecretAndAClosedOfficeHaveNoAnswer(t *testing.T) {
	t.Parallel()
	o := open(t)
	if send(t, o.address, "guess", record("Start", "")) {
		t.Error("a wrong secret was answered")
	}
	o.close(true)
	if send(t, o.address, secret, record("Start", "")) {
		t.Error("answered without a commit")
	}
	o.close(false)
	if !send(t, o.address, secret, record("Start", "")) {
		t.Error("no answer")
	}
	o.until("start jansen")
}

var streamFiles = []string{"mods-available/bsmtpd_detail", "sites-available/bsmtpd-stream", "policy.d/bsmtpd"}

func TestFreeRADIUSStreamsAtOnceAndLosesNothing(t *testing.T) {
	t.Parallel()
	o := open(t)
	f := install(t, "bsmtpd_stream", streamFiles, map[string]string{"port = 18130": "port = " + o.port, "retry_interval = 5": "retry_interval = 1"})
	began := time.Now()
	if !send(t, f.address, secret, record("Start", "")) {
		t.Fatal("FreeRADIUS does not answer")
	}
	o.until("start jansen")
	t.Logf("told after %v", time.Since(began).Round(time.Millisecond))
	o.until("start jansen", "start jansen again") // the copy from the disk

	// What is sent while nothing can be committed arrives from the disk.
	o.close(true)
	for _, r := range []string{record("Stop", ""), record("Accounting-Off", "")} {
		if !send(t, f.address, secret, r) {
			t.Fatalf("an access server waits for bsmtpd: %s", r)
		}
	}
	o.close(false)
	o.wait(func(told []string) bool { return slices.Contains(told, "stop jansen") && slices.Contains(told, "off") },
		"want stop and off as well")
	if p := o.presence(); p.Online {
		t.Errorf("presence %+v", p)
	}
}

func TestFreeRADIUSTellsTheHook(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/lib/freeradius/rlm_rest.so"); err != nil {
		t.Skip("rlm_rest is not installed: apt-get install freeradius-rest")
	}
	hook := &hook{}
	s := httptest.NewServer(hook)
	defer s.Close()
	f := install(t, "bsmtpd_hook",
		[]string{"mods-available/bsmtpd_detail", "mods-available/bsmtpd_rest", "sites-available/bsmtpd-hook", "policy.d/bsmtpd"},
		map[string]string{"http://127.0.0.1:8025": s.URL, "CHANGE-ME": "token-of-the-test", "retry_interval = 5": "retry_interval = 1"})
	for _, r := range []string{record("Start", ""), record("Interim-Update", ""), record("Stop", ""), record("Accounting-On", "")} {
		if !send(t, f.address, secret, r) {
			t.Fatalf("FreeRADIUS does not answer %s", r)
		}
	}
	life := []string{"start jansen 192.0.2.10 nas1 s1", "interim jansen 192.0.2.10 nas1 s1", "stop jansen 192.0.2.10 nas1 s1"}
	hook.until(t, life...)
	hook.refuse(true)
	if !send(t, f.address, secret, "Acct-Status-Type=Start,User-Name=jan\"sen,NAS-Identifier=nas1") {
		t.Fatal("an access server waits for bsmtpd")
	}
	hook.refuse(false)
	hook.until(t, append(life, `start jan"sen  nas1 `)...)
}

// hook is the HTTP side of bsmtpd as far as FreeRADIUS sees it.
type hook struct {
	mu      sync.Mutex
	told    []string
	refused bool
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var e struct{ Login, Address, Event, NAS, Session string }
	err := json.Unmarshal(body, &e)
	switch {
	case h.refused:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method != "POST" || r.URL.Path != "/api/v1/logins" || r.Header.Get("Authorization") != "Bearer token-of-the-test" ||
		r.Header.Get("Content-Type") != "application/json" || err != nil:
		h.told = append(h.told, "wrong: "+r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+string(body))
		w.WriteHeader(http.StatusBadRequest)
	default:
		h.told = append(h.told, strings.Join([]string{e.Event, e.Login, e.Address, e.NAS, e.Session}, " "))
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"login":"jansen","online":true}`)
	}
}

func (h *hook) refuse(refused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused = refused
}

func (h *hook) until(t *testing.T, want ...string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		h.mu.Lock()
		told := strings.Join(h.told, ",")
		h.mu.Unlock()
		if told == strings.Join(want, ",") {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("told %q, want %q", told, want)
		}
	}
}
