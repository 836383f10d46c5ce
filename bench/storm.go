package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// tempest is the state of one storm.
type tempest struct {
	*bench
	c      *crowd
	within time.Duration // of all logins
	sent   []time.Time   // by customer: of the login

	mu    sync.Mutex  // guards first, last
	first []time.Time // by customer: octets at his server
	last  time.Time   // end of a message

	served atomic.Int64
}

// storm is what follows a power cut: everybody logs in within a minute, and new
// mail keeps coming.
func storm(ctx context.Context, b *bench) error {
	t := &tempest{bench: b, c: &crowd{newBsmtpd(b), size(b, 100_000, 3000)}, within: size(b, time.Minute, 3*time.Second)}
	t.sent, t.first = make([]time.Time, t.c.size), make([]time.Time, t.c.size)
	defer t.c.stop()
	far, err := farAddrs(size(b, 1000, 50))
	if err != nil {
		return err
	}
	if err := b.waiting(ctx, t.c, nil, func(i int) string { return far[i%len(far)] }); err != nil {
		return err
	}
	k, err := startCustomers(far, t.took, "PIPELINING", "CHUNKING")
	if err != nil {
		return err
	}
	defer k.stop()
	mail, err := t.newMail(ctx)
	if err != nil {
		return err
	}
	normal, err := mail.speed(ctx, size(b, 10*time.Second, time.Second))
	if err != nil {
		return err
	}
	most := watchMemory(t.c.group(), time.Second)
	defer most()
	profiled := b.profile(t.c.bsmtpd, 0, t.within/2)
	before, began := mail.f.taken.Load(), time.Now()
	err = t.logins(ctx)
	loggedIn := time.Since(began)
	if err == nil {
		err = t.allServed(ctx)
	}
	during := float64(mail.f.taken.Load()-before) / time.Since(began).Seconds()
	profiled()
	memory := most()
	t.judge(began, loggedIn, normal, during, memory)
	return errors.Join(err, mail.stop())
}

// took notes a message at a customer's server.
func (t *tempest) took(a arrival) {
	i, ok := crowdMember(a.to)
	if !ok || i >= len(t.first) {
		return
	}
	t.mu.Lock()
	if t.first[i].IsZero() {
		t.first[i] = a.hello
		t.served.Add(1)
	}
	t.last = a.done
	t.mu.Unlock()
}

// stream is mail that comes in without end, to the customer whose queue is held.
type stream struct {
	f    *fill
	end  chan struct{}
	done chan error
}

func (t *tempest) newMail(ctx context.Context) (*stream, error) {
	s := &stream{f: &fill{addr: t.c.smtp, connections: 16, length: 4096, to: func(int) string { return recipient }}, end: make(chan struct{}), done: make(chan error, 1)}
	go func() { s.done <- s.f.bring(ctx, 0, 1<<40, s.end) }()
	return s, until(ctx, 10*time.Millisecond, "mail is being taken", func() (bool, error) { return s.f.taken.Load() > 1000, nil })
}

// speed in messages per second over a time.
func (s *stream) speed(ctx context.Context, length time.Duration) (float64, error) {
	before, began := s.f.taken.Load(), time.Now()
	select {
	case <-time.After(length):
		return float64(s.f.taken.Load()-before) / time.Since(began).Seconds(), nil
	case err := <-s.done:
		s.done <- err
		return 0, fmt.Errorf("new mail is not taken: %w", err)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *stream) stop() error {
	close(s.end)
	return <-s.done
}

// accessServers tell of logins side by side.
const accessServers = 256

// logins lets everybody log in, spread evenly over the time.
func (t *tempest) logins(ctx context.Context) error {
	began := time.Now()
	var next atomic.Int64
	errs := make([]error, accessServers)
	var wg sync.WaitGroup
	for w := range accessServers {
		wg.Go(func() {
			a, err := newAccess(t.c.radius)
			if err != nil {
				errs[w] = err
				return
			}
			defer a.conn.Close()
			for {
				i := int(next.Add(1)) - 1
				if i >= t.c.size || ctx.Err() != nil {
					return
				}
				time.Sleep(time.Until(began.Add(t.within * time.Duration(i) / time.Duration(t.c.size))))
				if t.sent[i], err = a.login(ctx, crowdLogin(i)); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stormPatience is how long after the last login all must be served.
const stormPatience = 3 * time.Minute

func (t *tempest) allServed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stormPatience)
	defer cancel()
	return until(ctx, 50*time.Millisecond, "all are served", func() (bool, error) { return t.served.Load() == int64(t.c.size), nil })
}

func (t *tempest) judge(began time.Time, loggedIn time.Duration, normal, during float64, m memory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var waits []float64
	for i, first := range t.first {
		if !first.IsZero() && !t.sent[i].IsZero() {
			waits = append(waits, first.Sub(t.sent[i]).Seconds()*1000)
		}
	}
	slices.Sort(waits)
	n := float64(t.c.size)
	what := fmt.Sprintf("storm of %s logins: ", number(n))
	add := func(name, unit string, value float64, want target, note string) {
		t.figures = append(t.figures, figure{Name: what + name, Unit: unit, Bsmtpd: []float64{value}, Target: want, Note: note})
	}
	add("customers served", "", float64(t.served.Load()), target{AtLeast: n}, "")
	add("all logins told, and answered", "s", loggedIn.Seconds(), target{AtMost: t.within.Seconds() * 1.05}, "")
	add("all served, from the first login", "s", t.last.Sub(began).Seconds(), target{}, "")
	add("login to first byte, p50", "ms", quantile(waits, 0.5), target{}, "")
	add("login to first byte, p99", "ms", quantile(waits, 0.99), target{}, fmt.Sprintf("most: %s", number(quantile(waits, 1))))
	add("most memory, RSS", "MiB", mib(m.rss), target{}, "")
	add("new mail taken meanwhile", "% of normal", during/normal*100, target{AtLeast: 50}, fmt.Sprintf("normal: %s/s", number(normal)))
}
