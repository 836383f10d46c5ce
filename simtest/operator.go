package simtest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

// This file is the operator: everything goes through the API on the admin socket,
// as the commands do.

// operation is one call of the API.
type operation func(ctx context.Context, c *client.Client) error

// operate makes a call of the API.
func (w *World) operate(call operation) error {
	c := client.Socket(w.life.machine, dataDir+"/admin.sock")
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return call(ctx, c)
}

// must is operate that has to succeed.
func (w *World) must(what string, call operation) {
	w.t.Helper()
	w.Note("operator: %s", what)
	if err := w.operate(call); err != nil {
		w.Fatalf("%s: %v", what, err)
	}
}

// Account makes an account LOGIN with the domain LOGIN.example, and starts its
// mail server, which is online.
func (w *World) Account(name string) *Server {
	w.t.Helper()
	return w.AccountWith(name, func(*wire.Account) {})
}

// AccountWith is Account with something about the account changed.
func (w *World) AccountWith(name string, change func(*wire.Account)) *Server {
	w.t.Helper()
	addr := netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + len(w.logins))})
	domain := name + ".example"
	s := w.newServer(name, domain, addr)
	a := wire.Account{Login: mail.Login(name), Addresses: []string{addr.String()}}
	change(&a)
	w.must("account add "+name, func(ctx context.Context, c *client.Client) error {
		if _, err := c.AddAccount(ctx, a); err != nil {
			return err
		}
		_, err := c.AddDomain(ctx, wire.Domain{Name: mail.Domain(domain), Login: a.Login})
		return err
	})
	w.logins[a.Login] = &customer{server: s, domain: mail.Domain(domain)}
	if w.first == "" {
		w.first = a.Login
	}
	return s
}

// Elsewhere makes a mail server of somebody in the world: the MX of a domain.
func (w *World) Elsewhere(domain string) *Server {
	addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(100 + len(w.servers))})
	s := w.newServer("mx-"+domain, domain, addr)
	w.DNS.SetMX(domain, "mx."+domain+".")
	w.DNS.SetAddrs("mx."+domain, addr)
	return s
}

// Remove takes messages out of the queues.
func (w *World) Remove(ids ...mail.ID) {
	w.t.Helper()
	if err := w.TryRemove(ids...); err != nil {
		w.Fatalf("queue remove: %v", err)
	}
}

// TryRemove is Remove where the node may say no. What it said yes to is checked:
// nothing of it may be delivered afterwards.
func (w *World) TryRemove(ids ...mail.ID) error {
	a := wire.Action{Action: "remove", Reason: "a story wants it"}
	for _, id := range ids {
		a.IDs = append(a.IDs, id.String())
	}
	w.Note("operator: queue remove %v", a.IDs)
	var done wire.Progress
	err := w.operate(func(ctx context.Context, c *client.Client) (err error) {
		done, err = c.Act(ctx, a, nil)
		return err
	})
	if err != nil {
		return err
	}
	if done.Failed > 0 {
		return fmt.Errorf("%d of them failed", done.Failed)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.removed[id] = time.Now()
	}
	return nil
}

// Requeue brings removed messages back.
func (w *World) Requeue(ids ...mail.ID) {
	w.t.Helper()
	a := wire.Action{Action: "requeue"}
	for _, id := range ids {
		a.IDs = append(a.IDs, id.String())
	}
	w.must(fmt.Sprintf("queue requeue %v", a.IDs), func(ctx context.Context, c *client.Client) error {
		_, err := c.Act(ctx, a, nil)
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.removed[id] = time.Time{}
	}
}

// Retry tries a queue now, if there is one.
func (w *World) Retry(queue string) {
	w.t.Helper()
	w.must("queue retry "+queue, func(ctx context.Context, c *client.Client) error {
		_, err := c.RetryQueue(ctx, queue)
		if mail.KindOf(err) == mail.NotFound {
			err = nil
		}
		return err
	})
}

// Offline takes a customer's line down: nothing comes back from its address.
func (w *World) Offline(name string) {
	w.Note("%s is offline", name)
	w.Net.Silence(w.account(name).server.addr, true)
}

// Online brings it up again; nobody tells the node.
func (w *World) Online(name string) {
	w.Note("%s is online", name)
	w.Net.Silence(w.account(name).server.addr, false)
}

func (w *World) isOffline(name string) bool {
	w.Net.mu.Lock()
	defer w.Net.mu.Unlock()
	return w.Net.silent[w.account(name).server.addr]
}

// Refuses lets a customer's server refuse connections, or no longer.
func (w *World) Refuses(name string, on bool) {
	w.Note("%s refuses connections: %v", name, on)
	w.Net.Refuse(w.account(name).server.addr, on)
}

// Server is a customer's.
func (w *World) Server(name string) *Server { return w.account(name).server }

// Metric reads a metric, the sum over all its labels that contain some words.
func (w *World) Metric(name string, words ...string) float64 {
	w.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return w.senders.Dial(ctx, network, netip.Addr{}, addr)
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://" + nodeAddr.String() + ":8025/metrics")
	if err != nil {
		w.Fatalf("metrics: %v", err)
	}
	defer resp.Body.Close()
	sum := 0.0
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), " ")
		bare, labels, _ := strings.Cut(key, "{")
		if !ok || bare != "bsmtpd_"+name || !containsAll(labels, words) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			w.Fatalf("metric %s is %q", name, value)
		}
		sum += v
	}
	return sum
}

func containsAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, `"`+word+`"`) {
			return false
		}
	}
	return true
}
