package peers

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// ledger is what senders know: which messages were acknowledged with a 250.
type ledger struct {
	mu    sync.Mutex
	acked map[string]bool // by subject
	lost  int             // conversations that broke off
}

func (l *ledger) ack(subject string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[subject] = true
}

func (l *ledger) counts() (acked, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked), l.lost
}

// load is senders at work until stop is called.
type load struct {
	ledger
	addr func() string // where the server is now; empty: it is not there
	stop chan struct{}
	wg   sync.WaitGroup
}

// send begins n senders. Each gives its messages in turn to the recipients; one
// that loses its connection connects again and goes on with the next message: of
// the one before it does not know, as a real sender would not.
func (l *load) send(n int, to ...string) {
	l.acked, l.stop = map[string]bool{}, make(chan struct{})
	for i := range n {
		l.wg.Go(func() {
			for k := 0; ; {
				select {
				case <-l.stop:
					return
				default:
				}
				if sent := l.converse(i, k, to); sent > 0 {
					k += sent
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

// converse sends messages over one connection from number k on, and gives how
// many it has begun.
func (l *load) converse(sender, k int, to []string) (begun int) {
	addr := l.addr()
	if addr == "" {
		return 0
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0
	}
	defer c.Close()
	r := bufio.NewReader(c)
	say := func(line, want string) bool {
		c.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprint(c, line); err != nil {
			return false
		}
		got, err := r.ReadString('\n')
		return err == nil && strings.HasPrefix(got, want)
	}
	if !say("", "220") || !say("HELO sender.example\r\n", "250") {
		return 0
	}
	for ; ; begun++ {
		select {
		case <-l.stop:
			return begun
		default:
		}
		subject := fmt.Sprintf("%d.%d", sender, k+begun)
		body := "Subject: " + subject + "\r\n\r\n" + strings.Repeat("all work and no play\r\n", 1+(k+begun)%300)
		rcpt := to[(k+begun)%len(to)]
		if say("MAIL FROM:<anna@pietersen.example>\r\n", "250") && say("RCPT TO:<"+rcpt+">\r\n", "250") && say("DATA\r\n", "354") &&
			say(body+".\r\n", "250 2.0.0 queued as ") {
			l.ack(subject)
			continue
		}
		l.mu.Lock()
		l.lost++
		l.mu.Unlock()
		return begun + 1
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// audit compares the ledger with what has come to the customers: acknowledged
// messages that are missing, messages that came though nobody was told of them, and
// copies too many.
func (l *ledger) audit(sinks []*sink) (missing, unacked, again int) {
	times := map[string]int{}
	for _, k := range sinks {
		for len(k.got) > 0 {
			_, subject, _ := strings.Cut(string((<-k.got).body), "\r\nSubject: ")
			subject, _, _ = strings.Cut(subject, "\r\n")
			times[subject]++
		}
	}
	for subject := range l.acked {
		if times[subject] == 0 {
			missing++
		}
	}
	for subject, n := range times {
		if !l.acked[subject] {
			unacked++
		}
		again += n - 1
	}
	return missing, unacked, again
}

// TestKillsLoseNoAcknowledgedMessage takes the server away three times in the
// middle of its work. Two customers are online, two are not.
func TestKillsLoseNoAcknowledgedMessage(t *testing.T) {
	t.Parallel()
	s := serve(t, settings{"quota.default": "1GiB", "node.raft.snapshot_bytes": "4MiB"})
	online := []*sink{newSink(t), newSink(t, "PIPELINING")}
	s.customer("jansen", online[0].addr)
	s.customer("devries", online[1].addr)
	s.customer("bakker", "127.0.0.1:1")
	s.customer("smit", "127.0.0.1:1")

	var mu sync.Mutex
	addr := s.smtp()
	l := &load{addr: func() string { mu.Lock(); defer mu.Unlock(); return addr }}
	l.send(6, "info@jansen.example", "info@devries.example", "info@bakker.example", "info@smit.example")
	for kill := range 3 {
		before, _ := l.counts()
		until(t, "much mail is acknowledged", func() bool { n, _ := l.counts(); return n >= before+400 })
		s.kill()
		mu.Lock()
		addr = ""
		mu.Unlock()
		s.start()
		mu.Lock()
		addr = s.smtp()
		mu.Unlock()
		acked, lost := l.counts()
		t.Logf("kill %d: %d messages acknowledged so far, %d conversations broken off", kill+1, acked, lost)
	}
	before, _ := l.counts()
	until(t, "mail is acknowledged after the last kill", func() bool { n, _ := l.counts(); return n >= before+100 })
	l.end()

	// The two who were offline come online, and everything must be there.
	late := newSink(t)
	s.cli("account", "set", "bakker", "smit", "--route", late.addr)
	s.cli("queue", "retry", "ALL")
	for _, login := range []string{"jansen", "devries", "bakker", "smit"} {
		s.drained(login)
	}
	missing, unacked, again := l.audit(append(online, late))
	acked, lost := l.counts()
	t.Logf("%d acknowledged, %d of them missing; %d came without an acknowledgement (%d conversations broke off); %d came again", acked, missing, unacked, lost, again)
	if missing > 0 {
		t.Errorf("%d acknowledged messages are lost", missing)
	}
	// A copy too many only where a kill came between an answer and its record:
	// at most a window of messages for each of the two online, at each kill.
	if most := 3 * 2 * 100; again > most || unacked > lost {
		t.Errorf("%d copies, %d messages that nobody was told of; at most %d and %d can be explained", again, unacked, most, lost)
	}
	s.works()
}

// TestSmtpSourceIsServed takes load from another program than ours, over
// connections of its own, and loses nothing of it.
func TestSmtpSourceIsServed(t *testing.T) {
	t.Parallel()
	k := newSink(t)
	s := serve(t, nil)
	s.customer("jansen", k.addr)
	const messages = 500
	r := execute(t, "", need(t, "smtp-source", "postfix"), "-s", "8", "-m", fmt.Sprint(messages), "-l", "5000", "-d",
		"-f", "anna@pietersen.example", "-t", "info@jansen.example", "-M", "sender.pietersen.example", s.smtp())
	if r.code != 0 {
		t.Fatalf("smtp-source: %s%s", r.out, r.errs)
	}
	s.drained("jansen")
	if n := len(k.got); n != messages {
		t.Errorf("%d messages arrived, want %d", n, messages)
	}
	for len(k.got) > 0 {
		if d := <-k.got; len(d.body) < 5000 {
			t.Fatalf("a message of %d octets, want at least 5000: %q", len(d.body), d.body)
		}
	}
}
