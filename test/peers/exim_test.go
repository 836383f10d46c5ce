package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// exim is another customer's mail server, unpacked and not installed. It delivers
// all mail into one maildir, with the recipient in the field Envelope-to.
type exim struct {
	t     *testing.T
	dir   string
	ports map[string]string // "bdat", "data"

	read map[string]bool     // files of the box
	mail map[string][]string // by local part
}

const eximConfig = `exim_path = BINARY
primary_hostname = exim.example
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
pid_file_path = DIR/pid
exim_user = Debian-exim
exim_group = Debian-exim
trusted_users = root
deliver_drop_privilege = true
keep_environment =
add_environment = PATH=/usr/bin
local_interfaces = 127.0.0.1
daemon_smtp_ports = BDAT : DATA
chunking_advertise_hosts = ${if eq{$received_port}{BDAT}{*}{}}
smtputf8_advertise_hosts = *
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
dns_dnssec_ok = 0
smtp_accept_max = 100
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
smtp_accept_max_nonmail = 1000
remote_max_parallel = 10
message_size_limit = 100M
header_maxsize = 2M
accept_8bitmime = true
return_path_remove = false
envelope_to_remove = false
delivery_date_remove = false
strip_trailing_dot = false
check_spool_space = 0
check_log_space = 0
check_spool_inodes = 0
check_log_inodes = 0
acl_smtp_rcpt = everything
acl_smtp_data = everything

begin acl
everything:
  accept

begin routers
all:
  driver = accept
  transport = file

begin transports
file:
  driver = appendfile
  directory = DIR/box
  maildir_format
  envelope_to_add
  return_path_add
  delivery_date_add
  message_prefix =
  message_suffix =
  check_string =
  escape_string =
`

func newExim(t *testing.T) *exim {
	t.Helper()
	binary := os.Getenv("BSMTPD_TEST_EXIM")
	if binary == "" {
		binary, _ = filepath.Abs("../../.cache/exim/usr/sbin/exim4")
	}
	if err := exec.Command(binary, "-C", "/dev/null", "-bV").Run(); err != nil {
		t.Skipf("no Exim is unpacked at %s (%v): run scripts/peers.sh", binary, err)
	}
	needRoot(t, "Exim")
	e := &exim{t: t, dir: openDir(t), ports: map[string]string{"bdat": freePort(t), "data": freePort(t)},
		read: map[string]bool{}, mail: map[string][]string{}}
	config := strings.NewReplacer("DIR", e.dir, "BINARY", binary).Replace(eximConfig)
	for kind, port := range e.ports {
		config = strings.ReplaceAll(config, strings.ToUpper(kind), port)
	}
	for _, d := range []string{"spool", "log", "box"} {
		if err := os.Mkdir(filepath.Join(e.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "Debian-exim:Debian-exim", e.dir+"/spool", e.dir+"/log", e.dir+"/box").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	e.run(binary, write(t, e.dir+"/exim.conf", config))
	return e
}

// run starts the daemon and ends it with the test.
func (e *exim) run(binary, config string) {
	e.t.Helper()
	cmd := exec.Command(binary, "-C", config, "-bdf")
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	dieWithUs(cmd)
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	e.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-gone:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill()
			<-gone
		}
		if e.t.Failed() || *verbose {
			log, _ := os.ReadFile(e.dir + "/log/mainlog")
			panics, _ := os.ReadFile(e.dir + "/log/paniclog")
			e.t.Logf("Exim said:\n%s%s%s", said.String(), tail(string(log), 40), panics)
		}
	})
	for _, port := range e.ports {
		reachable(e.t, "127.0.0.1:"+port)
	}
}

func (e *exim) route(kind string) string { return "127.0.0.1:" + e.ports[kind] }

// box gives the messages that came for LOCAL.
func (e *exim) box(local string) []string {
	e.t.Helper()
	names, err := filepath.Glob(filepath.Join(e.dir, "box", "new", "*"))
	if err != nil {
		e.t.Fatal(err)
	}
	for _, name := range names {
		if e.read[name] {
			continue
		}
		e.read[name] = true
		b, err := os.ReadFile(name)
		if err != nil {
			e.t.Fatal(err)
		}
		_, to, _ := strings.Cut(string(b), "\nEnvelope-to: ")
		to, _, _ = strings.Cut(to, "@")
		e.mail[to] = append(e.mail[to], strings.ReplaceAll(string(b), "\n", "\r\n"))
	}
	return e.mail[local]
}
