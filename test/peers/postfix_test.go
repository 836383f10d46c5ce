package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// postfix is a customer's mail server: an instance of its own in a directory of
// its own, with one port for each set of extensions. It delivers the mail to
// LOCAL@anything into files box/LOCAL.ID.
type postfix struct {
	t     *testing.T
	dir   string
	ports map[string]string // by kind of service: "bdat", "data", "ascii", "tls"
}

// postfixMain takes everything as it comes: no header is added, dropped, completed
// or rewritten, and MIME is not looked at.
const postfixMain = `compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = customer.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_tls_cert_file = DIR/cert.pem
smtpd_tls_key_file = DIR/key.pem
in_flow_delay = 0
enable_long_queue_ids = yes
message_size_limit = 104857600
header_size_limit = 1048576
always_add_missing_headers = no
local_header_rewrite_clients =
message_drop_headers =
disable_mime_input_processing = yes
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:all
virtual_transport = box
box_destination_recipient_limit = 1
maillog_file = DIR/log
maillog_file_prefixes = DIR
`

const postfixMaster = `127.0.0.1:BDAT inet  n - n - - smtpd
127.0.0.1:DATA inet  n - n - - smtpd
  -o smtpd_discard_ehlo_keywords=chunking
127.0.0.1:ASCII inet  n - n - - smtpd
  -o smtputf8_enable=no -o smtpd_discard_ehlo_keywords=smtputf8
127.0.0.1:TLS inet  n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
box       unix  - n n - 10 pipe
  flags=DORX user=nobody null_sender= argv=/bin/sh DIR/keep ${user} ${queue_id}
anvil     unix  - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
`

// newPostfix makes the instance; it is not started. The ports stay its own over
// every stop and start.
func newPostfix(t *testing.T) *postfix {
	t.Helper()
	need(t, "postfix", "postfix")
	needRoot(t, "Postfix")
	p := &postfix{t: t, dir: openDir(t), ports: map[string]string{}}
	master := postfixMaster
	for _, kind := range []string{"bdat", "data", "ascii", "tls"} {
		p.ports[kind] = freePort(t)
		master = strings.Replace(master, strings.ToUpper(kind)+" inet", p.ports[kind]+" inet", 1)
	}
	for _, d := range []string{"etc", "queue", "data", "box"} {
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "postfix", p.dir+"/data").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if err := os.Chmod(filepath.Join(p.dir, "box"), 0o777); err != nil {
		t.Fatal(err)
	}
	selfSigned(t, p.dir, "customer.example")
	write(t, p.dir+"/keep", "cat >"+p.dir+"/box/.$1.$2 && mv "+p.dir+"/box/.$1.$2 "+p.dir+"/box/$1.$2\n")
	write(t, p.dir+"/etc/main.cf", strings.ReplaceAll(postfixMain, "DIR", p.dir))
	write(t, p.dir+"/etc/master.cf", strings.ReplaceAll(master, "DIR", p.dir))
	atEnd(t, "/usr/sbin/postfix", "-c", p.dir+"/etc", "stop")
	t.Cleanup(func() {
		if log, _ := os.ReadFile(p.dir + "/log"); t.Failed() || *verbose {
			t.Logf("Postfix said:\n%s", tail(string(log), 60))
		}
	})
	return p
}

func (p *postfix) start() {
	p.t.Helper()
	if r := execute(p.t, "", "/usr/sbin/postfix", "-c", p.dir+"/etc", "start"); r.code != 0 {
		log, _ := os.ReadFile(p.dir + "/log")
		p.t.Fatalf("postfix start: %s%s\n%s", r.out, r.errs, log)
	}
	for _, port := range p.ports {
		reachable(p.t, "127.0.0.1:"+port)
	}
}

func (p *postfix) stop() {
	p.t.Helper()
	if r := execute(p.t, "", "/usr/sbin/postfix", "-c", p.dir+"/etc", "stop"); r.code != 0 {
		p.t.Fatalf("postfix stop: %s%s", r.out, r.errs)
	}
}

func (p *postfix) route(kind string) string { return "127.0.0.1:" + p.ports[kind] }

// box gives the messages that came for LOCAL.
func (p *postfix) box(local string) []string {
	p.t.Helper()
	names, err := filepath.Glob(filepath.Join(p.dir, "box", local+".*"))
	if err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			p.t.Fatal(err)
		}
		out = append(out, strings.ReplaceAll(string(b), "\n", "\r\n"))
	}
	return out
}

// inOrder are the messages for LOCAL in the order in which Postfix took them: its
// long queue IDs grow with time.
func (p *postfix) inOrder(local string) []string {
	p.t.Helper()
	got := p.box(local)
	id := func(m string) string { // "by customer.example (Postfix) with ESMTP id 4jYFmZ0Q4xz1SHc1"
		_, rest, ok := strings.Cut(m, "(Postfix) with ")
		_, rest, _ = strings.Cut(rest, " id ")
		if word, _, _ := strings.Cut(rest, "\r"); ok {
			return strings.TrimRight(word, ";")
		}
		p.t.Fatalf("a message without Postfix's Received field:\n%s", m)
		return ""
	}
	slices.SortFunc(got, func(a, b string) int { return strings.Compare(id(a), id(b)) })
	return got
}

// tail is the last lines of a log.
func tail(log string, lines int) string {
	all := strings.SplitAfter(log, "\n")
	if cut := len(all) - lines; cut > 0 {
		return fmt.Sprintf("(%d lines)\n", cut) + strings.Join(all[cut:], "")
	}
	return log
}
