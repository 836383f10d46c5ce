package bounce

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

// world is a spool in memory with a Server on it.
type world struct {
	t *testing.T
	s *Server

	mu     sync.Mutex
	rows   []spool.Owed
	sent   []sentDSN
	waived []spool.Waive
	trouble
	places map[mail.Address]Place
	log    bytes.Buffer
}

// trouble is what goes wrong, by sender.
type trouble struct {
	enqueue map[mail.Address]error
	refuse  map[mail.Address]spool.Refusal
	resolve map[mail.Address]error
	body    func() (io.ReadCloser, error)
}

type sentDSN struct {
	at    time.Time
	queue spool.QueueName
	m     spool.Enqueue
	text  string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, places: map[mail.Address]Place{}, trouble: trouble{enqueue: map[mail.Address]error{},
		refuse: map[mail.Address]spool.Refusal{}, resolve: map[mail.Address]error{}}}
	log := slog.New(slog.NewTextHandler(&w.log, nil))
	w.s = New(Config{Locale: "en", MaxReturn: 50 << 10, Parallel: 4}, Deps{Hostname: "mx.example.net",
		Host:  host.Host{Rand: func(string) *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }},
		Spool: w, Queue: w, Resolver: w, Metrics: metric.New(), Log: log, Mail: metric.NewMailLog(log)})
	return w
}

// Owes adds a row for a sender and wakes the server.
func (w *world) Owes(from mail.Address) {
	w.mu.Lock()
	o := owed(func(o *spool.Owed) { o.From, o.Since = from, mail.At(time.Now()) })
	o.Key.Seq = uint64(len(w.rows) + len(w.sent) + len(w.waived) + 1)
	w.rows = append(w.rows, o)
	w.mu.Unlock()
	w.s.Wake()
}

func (w *world) Left() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.rows)
}

func (w *world) clear(k spool.OwedKey) error {
	for i, r := range w.rows {
		if r.Key == k {
			w.rows = append(w.rows[:i:i], w.rows[i+1:]...)
			return nil
		}
	}
	return mail.Fail(mail.NotFound, "not owed any more")
}

func (w *world) Owed(after spool.OwedKey, limit int) ([]spool.Owed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []spool.Owed
	for _, r := range w.rows {
		if r.Key.Seq > after.Seq && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, nil
}

func (w *world) Body(spool.BodyID) (io.ReadCloser, error) {
	if w.body != nil {
		return w.body()
	}
	return io.NopCloser(strings.NewReader(original)), nil
}

func (w *world) Resolve(a mail.Address) (Place, bool, error) {
	p, here := w.places[a]
	return p, here, w.resolve[a]
}

func (w *world) Enqueue(_ context.Context, m spool.Enqueue, body io.Reader) (spool.Enqueued, error) {
	b, err := io.ReadAll(body)
	if err != nil || int64(len(b)) != m.Size {
		w.t.Errorf("%d bytes of %d, %v", len(b), m.Size, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	to := m.Targets[0].To[0].Address
	if err := w.enqueue[to]; err != nil {
		return spool.Enqueued{}, err
	}
	if why := w.refuse[to]; why != spool.Accepted {
		return spool.Enqueued{Targets: []spool.TargetResult{{Refusal: why, Usage: 21 << 20, Quota: 20 << 20}}}, nil
	}
	if err := w.clear(*m.Settles); err != nil {
		return spool.Enqueued{}, err
	}
	w.sent = append(w.sent, sentDSN{time.Now(), m.Targets[0].Queue, m, string(b)})
	return spool.Enqueued{ID: mail.NewID(99, len(w.sent)), Targets: make([]spool.TargetResult, 1)}, nil
}

func (w *world) Waive(_ context.Context, c spool.Waive) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.clear(c.Key)
	if err == nil {
		w.waived = append(w.waived, c)
	}
	return err
}

// run gives the story a running server in a bubble.
func run(t *testing.T, story func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.s.Run(ctx) }()
		story(t, w)
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestASenderElsewhereIsToldAtOnceAndOnce(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		synctest.Wait()
		began := time.Now()
		w.Owes("els@example.org")
		synctest.Wait()
		time.Sleep(time.Hour)
		if len(w.sent) != 1 || w.Left() != 0 {
			t.Fatalf("sent %d, left %d", len(w.sent), w.Left())
		}
		got := w.sent[0]
		to := got.m.Targets[0].To[0]
		if got.at != began || got.queue != "out/example.org" || to.Address != "els@example.org" || to.Notify != mail.NotifyNever ||
			!got.m.Envelope.From.IsNull() || got.m.Envelope.Return != mail.ReturnUnset {
			t.Errorf("%v %+v", got.at.Sub(began), got.m)
		}
		if !strings.Contains(w.log.String(), "msg=bounced") {
			t.Errorf("the log says %s", &w.log)
		}
	})
}

func TestACustomerIsToldInTheirLanguageThroughTheirOwnQueue(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		w.places["piet@klant.example"] = Place{Queue: "account/piet", Locale: Dutch}
		w.Owes("piet@klant.example")
		synctest.Wait()
		if len(w.sent) != 1 || w.sent[0].queue != "account/piet" || !strings.Contains(w.sent[0].text, "Subject: Uw bericht") {
			t.Errorf("%+v", w.sent)
		}
	})
}

func TestTheConfiguredLanguageIsForStrangers(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		cfg := w.s.config()
		cfg.Locale = "nl"
		w.s.SetConfig(cfg)
		w.Owes("els@example.org")
		synctest.Wait()
		if len(w.sent) != 1 || !strings.Contains(w.sent[0].text, "Content-Language: nl") {
			t.Errorf("%+v", w.sent)
		}
	})
}

func TestWithoutAWakeTheRowIsFoundWithinAMinute(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		synctest.Wait()
		w.mu.Lock()
		w.rows = append(w.rows, owed())
		w.mu.Unlock()
		time.Sleep(lookAgain + time.Second)
		synctest.Wait()
		if w.Left() != 0 {
			t.Error("the row still stands")
		}
	})
}

func TestWhoCannotBeToldIsWaivedWithTheReason(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(*world)
		reason  string
		cause   string
	}{
		"full":            {func(w *world) { w.refuse["els@example.org"] = spool.OverQuota }, "the sender's own queue out/example.org is full (21MiB of 20MiB)", waivedRefused},
		"gone":            {func(w *world) { w.refuse["els@example.org"] = spool.NoAccount }, "has gone", waivedRefused},
		"no such mailbox": {func(w *world) { w.resolve["els@example.org"] = mail.Fail(mail.NotFound, "no mailbox els here") }, "no mailbox els here", waivedSender},
		"invalid":         {func(w *world) { w.enqueue["els@example.org"] = mail.Fail(mail.Invalid, "not so") }, "not so", waivedPoison},
		"panic":           {func(w *world) { w.body = func() (io.ReadCloser, error) { panic("oh") } }, "panic: oh", waivedPoison},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				c.trouble(w)
				w.Owes("els@example.org")
				synctest.Wait()
				if len(w.waived) != 1 || !strings.Contains(w.waived[0].Reason, c.reason) || len(w.sent) != 0 {
					t.Errorf("waived %+v, sent %d", w.waived, len(w.sent))
				}
				if n := count(t, w.s.m.waived.WithLabelValues(c.cause)); n != 1 {
					t.Errorf("%v counted as %s", n, c.cause)
				}
				if !strings.Contains(w.log.String(), "msg=unbounced") {
					t.Errorf("the log says %s", &w.log)
				}
			})
		})
	}
}

func TestANullSenderIsNeverToldAnything(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		w.Owes(mail.Null)
		synctest.Wait()
		if len(w.sent) != 0 || len(w.waived) != 1 {
			t.Errorf("sent %d, waived %d", len(w.sent), len(w.waived))
		}
	})
}

func TestAnUnavailableLogDelaysAndLosesNothing(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		w.mu.Lock()
		w.enqueue["els@example.org"] = mail.Fail(mail.Unavailable, "no leader")
		w.mu.Unlock()
		w.Owes("els@example.org")
		w.Owes("kees@example.com")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if w.Left() != 1 || len(w.sent) != 1 || w.sent[0].queue != "out/example.com" {
			t.Errorf("left %d, sent %+v: one row's trouble held up the other", w.Left(), w.sent)
		}
		if n := count(t, w.s.m.retried); n < 10 || n > 30 {
			t.Errorf("%v attempts in ten minutes", n)
		}
		w.mu.Lock()
		delete(w.enqueue, "els@example.org")
		w.mu.Unlock()
		time.Sleep(pauseMax)
		synctest.Wait()
		if w.Left() != 0 || len(w.sent) != 2 {
			t.Errorf("left %d, sent %d", w.Left(), len(w.sent))
		}
	})
}

func TestRowsThatCannotBeToldDoNotHoldUpOthers(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		w.mu.Lock()
		w.resolve["els@example.org"] = mail.Fail(mail.Broken, "the row of the account is damaged")
		w.mu.Unlock()
		for range 2 * pageRows {
			w.Owes("els@example.org")
		}
		w.Owes("kees@example.com")
		time.Sleep(pauseFirst) // the first look may have come before the last row
		synctest.Wait()
		if len(w.sent) != 1 || w.Left() != 2*pageRows {
			t.Errorf("sent %d, left %d", len(w.sent), w.Left())
		}
		time.Sleep(time.Hour)
		began := time.Now()
		w.Owes("kees@example.com")
		time.Sleep(pauseMax)
		synctest.Wait()
		if len(w.sent) != 2 || w.sent[1].at.Sub(began) > 2*pauseFirst {
			t.Errorf("sent %d; a new one waits for the trouble of the old", len(w.sent))
		}
	})
}

func TestARowThatAnotherNodeDealtWithIsNoTrouble(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		w.mu.Lock()
		w.enqueue["els@example.org"] = mail.Fail(mail.NotFound, "not owed any more")
		w.mu.Unlock()
		w.Owes("els@example.org")
		synctest.Wait()
		if n := count(t, w.s.m.retried); n != 0 || len(w.waived) != 0 {
			t.Errorf("%v retried, %d waived", n, len(w.waived))
		}
		w.mu.Lock()
		w.rows = nil
		w.mu.Unlock()
	})
}

func TestAnUnreadableOriginalStillTellsTheSender(t *testing.T) {
	broken := errors.New("checksum mismatch")
	for name, body := range map[string]func() (io.ReadCloser, error){
		"opening": func() (io.ReadCloser, error) { return nil, broken },
		"reading": func() (io.ReadCloser, error) { return io.NopCloser(failing{broken}), nil },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				w.body = body
				w.Owes("els@example.org")
				synctest.Wait()
				if len(w.sent) != 1 || strings.Contains(w.sent[0].text, "rfc822-headers") {
					t.Fatalf("%+v", w.sent)
				}
				if !strings.Contains(w.log.String(), "checksum mismatch") {
					t.Errorf("the log says %s", &w.log)
				}
			})
		})
	}
}

func TestManyRowsAreAllTold(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		for range 3*pageRows + 7 {
			w.Owes("els@example.org")
		}
		synctest.Wait()
		if len(w.sent) != 3*pageRows+7 {
			t.Errorf("sent %d, left %d", len(w.sent), w.Left())
		}
	})
}

func TestConfigSaysWhatIsNotAllowed(t *testing.T) {
	good := Config{Locale: "nl", MaxReturn: 0, Parallel: 1, From: "Post <post@example.net>"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	err := Config{Locale: "fr", MaxReturn: 1 << 40, From: "a\nb"}.Check()
	for _, want := range []string{`locale: "fr"`, "max_return: 1TiB", "parallel: 0", `from: "a\nb"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

func count(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
