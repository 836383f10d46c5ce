package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	postfixCommand = "/usr/sbin/postfix"
	postfixMaster  = "/usr/lib/postfix/sbin/master"
)

// postfix is an instance of its own, with settings that favour it: no chroot, no
// look-ups, no delay of input, many processes, its log written by postlogd as on
// a real server.
type postfix struct {
	b    *bench
	dir  string // etc, queue and data are below
	smtp string
	run  *running
	all  *group
}

var _ server = (*postfix)(nil)

func newPostfix(b *bench) *postfix { return &postfix{b: b, all: &group{}} }

func (p *postfix) name() string  { return "postfix" }
func (p *postfix) addr() string  { return p.smtp }
func (p *postfix) group() *group { return p.all }

func (p *postfix) path(name string) string { return filepath.Join(p.dir, name) }

func (p *postfix) start(ctx context.Context, s setup) error {
	if err := p.configure(s); err != nil {
		return err
	}
	return p.launch(ctx)
}

func (p *postfix) configure(s setup) error {
	var err error
	if p.dir, err = p.b.fresh("postfix"); err != nil {
		return err
	}
	if p.smtp, err = freeAddr(); err != nil {
		return err
	}
	for _, d := range []string{"etc", "queue", "data"} {
		if err := os.Mkdir(p.path(d), 0o755); err != nil {
			return err
		}
	}
	if err := own(p.path("data"), "postfix"); err != nil {
		return err
	}
	if err := os.WriteFile(p.path("etc/main.cf"), []byte(p.mainCF(s)), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(p.path("etc/master.cf"), []byte(p.smtp+postfixServices), 0o644); err != nil {
		return err
	}
	// It makes the directories of the queue, too.
	if out, err := exec.Command(postfixCommand, "-c", p.path("etc"), "check").CombinedOutput(); err != nil {
		return fmt.Errorf("postfix check: %w: %s", err, out)
	}
	return nil
}

// launch starts Postfix on the queue that is there.
func (p *postfix) launch(ctx context.Context) error {
	p.all = newGroup("postfix")
	cmd := p.all.command(postfixMaster, "-c", p.path("etc"), "-s")
	var err error
	if p.run, err = begin(cmd); err != nil {
		return err
	}
	p.all.root = cmd.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return accepts(ctx, p.smtp, "")
}

func (p *postfix) stop() {
	p.run.end(20 * time.Second)
	p.all.end()
	p.run = nil
}

func own(dir, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	return os.Chown(dir, uid, -1)
}

func (p *postfix) queued(context.Context) (int, error) {
	return files(p.path("queue/incoming"), p.path("queue/active"), p.path("queue/deferred"), p.path("queue/hold")), nil
}

func (p *postfix) settled(context.Context) (bool, error) {
	return files(p.path("queue/incoming"), p.path("queue/active")) == 0, nil
}

func (p *postfix) flush(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "/usr/sbin/postqueue", "-c", p.path("etc"), "-f").CombinedOutput()
	if err != nil {
		return fmt.Errorf("postqueue -f: %w: %s", err, out)
	}
	return nil
}

func (p *postfix) mainCF(s setup) string {
	hold := ""
	if s.hold {
		hold = "check_client_access static:HOLD, "
	}
	host, port, _ := strings.Cut(s.next, ":")
	if s.next == "" {
		host, port = "127.0.0.1", "1"
	}
	most, first := 20, 5
	if s.connections > 0 {
		most, first = s.connections, s.connections
	}
	return strings.NewReplacer("$DIR", p.dir, "$DOMAIN", customerDomain, "$HOST", host, "$PORT", port, "$HOLD", hold,
		"$MOST", strconv.Itoa(most), "$FIRST", strconv.Itoa(first)).Replace(postfixMain)
}

const postfixMain = `compatibility_level = 3.6
queue_directory = $DIR/queue
data_directory = $DIR/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relay_domains = $DOMAIN
transport_maps = inline:{$DOMAIN=smtp:[$HOST]:$PORT}
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = $HOLDpermit_mynetworks, reject
smtpd_peername_lookup = no
disable_dns_lookups = yes
alias_maps =
local_recipient_maps =
in_flow_delay = 0
max_use = 1000
default_process_limit = 400
default_destination_concurrency_limit = $MOST
initial_destination_concurrency = $FIRST
qmgr_message_active_limit = 20000
qmgr_message_recipient_limit = 20000
minimal_backoff_time = 4000s
maximal_backoff_time = 8000s
queue_run_delay = 4000s
message_size_limit = 52428800
mailbox_size_limit = 0
smtpd_client_connection_count_limit = 0
maillog_file_prefixes = $DIR
maillog_file = $DIR/mail.log
`

const postfixServices = ` inet  n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
local     unix  - n n - - local
virtual   unix  - n n - - virtual
lmtp      unix  - - n - - lmtp
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
`
