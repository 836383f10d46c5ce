package simtest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

func withQuota(bytes int64) func(*wire.Account) {
	return func(a *wire.Account) { a.Quota = bytes }
}

// B11: the quota is exact, however many senders come at once: what was taken fits,
// and what was refused would not have fitted beside it.
func TestTheQuotaIsExactWhenManySendAtOnce(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		const quota = 100_000
		w.AccountWith("jansen", withQuota(quota))
		w.Offline("jansen")
		var all sync.WaitGroup
		var letters []*Letter
		for i := range 40 {
			l := w.Write(3000+500*(i%7), "jansen")
			letters = append(letters, l)
			all.Go(func() { w.Post(l) })
		}
		all.Wait()
		taken, least := 0, 1<<30
		for _, l := range letters {
			switch {
			case l.Taken():
				taken++
			case strings.HasPrefix(l.Said(), "552 5.2.2"):
				least = min(least, len(l.Text))
			default:
				t.Errorf("letter %d: %s", l.Number, l.Said())
			}
		}
		u, err := w.Node().Cluster().Quota().Of("jansen")
		w.ok("read the usage", err)
		if int(u.Messages) != taken || u.Bytes > quota || quota-u.Bytes > int64(least)+1000 {
			t.Errorf("%d letters taken, usage %+v of %d, and a letter of %d bytes was refused", taken, u, quota, least)
		}
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(time.Minute)
		if u, _ := w.Node().Cluster().Quota().Of("jansen"); u.Bytes != 0 || u.Messages != 0 {
			t.Errorf("an empty account is charged %+v", u)
		}
		if n := len(w.Server("jansen").Got()); n != taken {
			t.Errorf("%d of %d letters came", n, taken)
		}
	})
}

// B11: who has no byte left is refused at RCPT, who has too few at the end of data.
func TestAFullAccountIsRefusedInTheDialogue(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.AccountWith("jansen", withQuota(5000))
		w.Offline("jansen")
		first := w.Write(4000, "jansen")
		second := w.Write(2000, "jansen")
		w.ok("post", w.Post(first, second))
		if !first.Taken() || !strings.HasPrefix(second.Said(), "552 5.2.2") || !strings.Contains(second.Said(), "no room for") {
			t.Errorf("the letters were answered %q and %q", first.Said(), second.Said())
		}
		size := int64(0)
		for m := range w.messages() {
			size += m.Size
		}
		w.must("account set jansen --quota", setQuota("jansen", size))
		third := w.TryMail(1)[0]
		if !strings.HasPrefix(third.Said(), "552 5.2.2") || !strings.Contains(third.Said(), "is full") {
			t.Errorf("the third was answered %q", third.Said())
		}
	})
}

// B11: where a message has room with one customer and not with another, it is
// taken, and its sender gets a notification about the other, in his own queue.
func TestTheSenderIsToldOfAFullRecipient(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.AccountWith("jansen", withQuota(1000))
		w.Account("pietersen")
		home := w.Elsewhere(worldDomain)
		home.machine.net.Silence(home.addr, true)
		l := w.Write(3000, "jansen", "pietersen")
		w.ok("post", w.Post(l))
		if !l.Taken() {
			t.Fatalf("the letter was not taken: %s", l.Said())
		}
		w.Sleep(time.Second)
		if n := w.Waiting("out/" + worldDomain); n != 1 {
			t.Errorf("%d notifications wait for the sender", n)
		}
		w.Delivered("pietersen", l)
		home.machine.net.Silence(home.addr, false)
		w.Sleep(10 * time.Minute)
		got := home.Got()
		if len(got) != 1 || got[0].From != "" || got[0].To != l.From || !strings.Contains(string(got[0].Data), "5.2.2") {
			t.Errorf("the sender got %+v", got)
		}
	})
}

// B9, B11: mailbox and queue share one quota.
func TestMailboxAndQueueShareTheQuota(t *testing.T) {
	t.Parallel()
	Story(t, func(w *World) {
		w.AccountWith("jansen", withQuota(6000))
		w.Offline("jansen")
		own := w.Write(3000, "jansen@"+providerDomain)
		other := w.Write(3000, "jansen")
		w.ok("post", w.Post(own, other))
		if !own.Taken() || !strings.HasPrefix(other.Said(), "552 5.2.2") {
			t.Errorf("the letters were answered %q and %q", own.Said(), other.Said())
		}
		w.Online("jansen")
		w.Login("jansen")
		w.Sleep(5 * time.Hour)
		w.Delivered("jansen") // the mailbox is never pushed
		if n := w.Waiting("mailbox/jansen"); n != 1 {
			t.Errorf("%d letters are in the mailbox", n)
		}
	})
}

func setQuota(login mail.Login, bytes int64) operation {
	return func(ctx context.Context, c *client.Client) error {
		_, err := c.SetAccount(ctx, login, wire.AccountPatch{Quota: &bytes})
		return err
	}
}
