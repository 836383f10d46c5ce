package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"

	"bsmtpd/config"
	"bsmtpd/mail"
	"bsmtpd/node"
)

func demoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "show the whole story on this machine, with real messages",
		Long: `Start a server and a customer's mail server on loopback, in a temporary directory,
and show the life of mail: the customer is offline, mail is accepted and queued, a
RADIUS Start says that the customer is online, the mail is pushed, the quota is
reached. Takes a few seconds and leaves nothing behind.`,
		Example: `  bsmtpd demo`,
		Args:    exactly(),
		RunE:    func(c *cobra.Command, _ []string) error { return a.demo(c.Context()) },
	}
}

// demonstration is the state of one demo.
type demonstration struct {
	*app
	ctx    context.Context
	dir    string
	listen map[string][]string
	server customerServer
}

// demoLimit ends a demo that hangs.
const demoLimit = 2 * time.Minute

func (a *app) demo(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	dir, err := os.MkdirTemp("", "bsmtpd-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demonstration{app: a, ctx: ctx, dir: filepath.Join(dir, "data")}
	stop, err := d.start()
	if err != nil {
		return err
	}
	for _, act := range []func() error{d.customer, d.offline, d.online, d.full, d.partly} {
		if err := act(); err != nil {
			stop()
			return err
		}
	}
	d.tell("The server stops. Whatever is still queued would be there again at its next start.")
	return stop()
}

// start runs a node on free ports of loopback and waits until it is ready.
func (d *demonstration) start() (stop func() error, err error) {
	conf := config.Default()
	conf.Node.DataDir = d.dir
	conf.Node.Hostname = "mx.provider.example"
	conf.SMTPD.Listen = []string{"127.0.0.1:0"}
	conf.Login.Radius.Listen = "127.0.0.1:0"
	conf.API.Address = "127.0.0.1:0"
	n, err := node.New(node.Options{Config: conf, Host: d.host, Log: slog.New(slog.DiscardHandler), Version: version()})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(d.ctx)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	d.listen = n.Listens()
	d.tell("A server runs, with SMTP on %s and RADIUS on %s.", d.listen["smtpd.listen"][0], d.listen["login.radius.listen"][0])
	return func() error { cancel(); return <-ended }, d.server.reserve(d.host.Rand("demo"))
}

// tell writes a sentence of the story.
func (d *demonstration) tell(format string, args ...any) {
	d.out.Flush()
	fmt.Fprintf(d.out, "\n# "+format+"\n", args...)
}

// command runs one of our own commands and shows it as a person would type it.
func (d *demonstration) command(args ...string) error {
	fmt.Fprintf(d.out, "$ bsmtpd %s\n", strings.Join(args, " "))
	d.out.Flush()
	var out, errs bytes.Buffer
	argv := append([]string{"bsmtpd", "--data", d.dir}, args...)
	code := run(d.ctx, argv, strings.NewReader(""), &out, &errs, nil)
	d.out.Write(out.Bytes())
	d.out.Write(errs.Bytes())
	if code != 0 {
		return fmt.Errorf("bsmtpd %s ended with code %d", strings.Join(args, " "), code)
	}
	return nil
}

func (d *demonstration) customer() error {
	d.tell("Jansen has a line with a fixed address and a mail server of his own behind it. Pietersen is a customer too.")
	for _, args := range [][]string{
		{"account", "add", "jansen", "--address", "127.0.0.1", "--route", d.server.addr, "--quota", "48KiB"},
		{"domain", "add", "jansen.example", "--account", "jansen"},
		{"account", "add", "pietersen", "--route", "127.0.0.1:9"},
		{"domain", "add", "pietersen.example", "--account", "pietersen"},
	} {
		if err := d.command(args...); err != nil {
			return err
		}
	}
	return nil
}

func (d *demonstration) offline() error {
	d.tell("Jansen's server is offline. Mail for him is accepted and kept.")
	for i := range 3 {
		reply, err := d.send("anna@pietersen.example", fmt.Sprintf("Letter %d", i+1), 2000, "info@jansen.example")
		if err != nil {
			return err
		}
		if !strings.HasPrefix(reply, "250") {
			return fmt.Errorf("mail was not accepted: %s", reply)
		}
	}
	if err := d.waitFor(func() (bool, error) {
		q, ok, err := d.queue("jansen")
		return ok && q.failing, err
	}); err != nil {
		return err
	}
	d.tell("The server knows why it waits.")
	if err := d.command("queue", "summary"); err != nil {
		return err
	}
	return d.command("queue", "list", "--account", "jansen")
}

func (d *demonstration) online() error {
	d.tell("Jansen's server comes up, and RADIUS says that he has logged in.")
	if err := d.server.start(); err != nil {
		return err
	}
	defer d.server.stop()
	began := time.Now()
	if err := d.radius("demo-1"); err != nil {
		return err
	}
	for i := range 3 {
		select {
		case got := <-d.server.mail:
			fmt.Fprintf(d.out, "%4d ms  Jansen's server has %q\n", time.Since(began).Milliseconds(), got)
			if want := fmt.Sprintf("Letter %d", i+1); got != want {
				return fmt.Errorf("got %q where %q was due: the order was not kept", got, want)
			}
		case <-d.ctx.Done():
			return fmt.Errorf("the mail was not pushed: %w", d.ctx.Err())
		}
	}
	if err := d.waitFor(func() (bool, error) {
		q, ok, err := d.queue("jansen")
		return ok && q.messages == 0 && !q.active, err
	}); err != nil {
		return err
	}
	d.tell("A second login within 20 minutes is recorded, and starts nothing.")
	if err := d.command("login", "send", "jansen", "--address", "127.0.0.1"); err != nil {
		return err
	}
	return d.command("login", "list")
}

func (d *demonstration) full() error {
	d.tell("He goes offline, and mail comes until his 48 KiB are full. What does not fit is refused at once.")
	for i := range 20 {
		reply, err := d.send("anna@pietersen.example", fmt.Sprintf("Photo %d", i+1), 15_000, "info@jansen.example")
		if err != nil {
			return err
		}
		if strings.HasPrefix(reply, "552") {
			return nil
		}
	}
	return fmt.Errorf("the quota was never reached")
}

func (d *demonstration) partly() error {
	d.tell("A message to both customers is taken for the one who has room; its sender is told about the other.")
	reply, err := d.send("bert@pietersen.example", "To you both", 15_000, "info@jansen.example", "info@pietersen.example")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(reply, "250") && !strings.HasPrefix(reply, "552") {
		return fmt.Errorf("unexpected reply: %s", reply)
	}
	if err := d.waitFor(func() (bool, error) {
		q, ok, err := d.queue("pietersen")
		return ok && q.messages >= 2 && !q.active, err
	}); err != nil {
		return err
	}
	if err := d.command("queue", "list", "--account", "pietersen"); err != nil {
		return err
	}
	return d.command("account", "explain", "jansen", "--quick")
}

// radius sends an accounting Start as an access server does.
func (d *demonstration) radius(session string) error {
	p := radius.New(radius.CodeAccountingRequest, []byte("testing123"))
	for _, err := range []error{
		rfc2866.AcctStatusType_Set(p, rfc2866.AcctStatusType_Value_Start),
		rfc2865.UserName_SetString(p, "jansen"),
		rfc2866.AcctSessionID_SetString(p, session),
		rfc2865.FramedIPAddress_Set(p, net.IPv4(127, 0, 0, 1)),
		rfc2865.NASIdentifier_SetString(p, "nas1"),
	} {
		if err != nil {
			return err
		}
	}
	addr := d.listen["login.radius.listen"][0]
	fmt.Fprintf(d.out, "> Accounting-Request Start User-Name=jansen Framed-IP-Address=127.0.0.1\n")
	d.out.Flush()
	reply, err := radius.Exchange(d.ctx, p, addr)
	if err != nil {
		return fmt.Errorf("RADIUS on %s: %w", addr, err)
	}
	fmt.Fprintf(d.out, "< %s\n", reply.Code)
	return nil
}

// demoQueue is what the demo looks for in a queue.
type demoQueue struct {
	messages int64
	failing  bool
	active   bool
}

// queue asks the server about an account's queue.
func (d *demonstration) queue(login string) (demoQueue, bool, error) {
	a := newApp(nil, io.Discard, io.Discard, nil)
	a.data = d.dir
	c, err := a.client()
	if err != nil {
		return demoQueue{}, false, err
	}
	defer c.Close()
	q, err := c.Queue(d.ctx, "account/"+login)
	if mail.KindOf(err) == mail.NotFound {
		return demoQueue{}, false, nil
	}
	return demoQueue{q.Messages, q.Failing, q.Active != ""}, err == nil, err
}

// waitFor asks again until it is so, or the demo's time is over.
func (d *demonstration) waitFor(so func() (bool, error)) error {
	for {
		ok, err := so()
		if err != nil || ok {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-d.ctx.Done():
			return d.ctx.Err()
		}
	}
}

// dial opens a connection to the demo's SMTP port.
func (d *demonstration) dial() (net.Conn, error) {
	return d.host.Net.Dial(d.ctx, "tcp", netip.Addr{}, d.listen["smtpd.listen"][0])
}
