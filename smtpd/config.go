package smtpd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"bsmtpd/mail"
	"bsmtpd/smtpd/strict"
	"bsmtpd/spool"
)

// Config are the settings of the edge, under the key smtpd.
type Config struct {
	Listen     []string `key:"listen" default:"127.0.0.1:2525" doc:"Addresses host:port on which mail is taken in. Port 0 chooses a free one."`
	Postmaster string   `key:"postmaster" default:"" reload:"yes" doc:"Address that gets mail for <postmaster> without a domain and for postmaster at node.hostname (RFC 5321 section 4.5.1). It must be an address that this server takes mail for. Empty: such mail is refused."`

	TLSCert string `key:"tls_cert" default:"" doc:"File with the certificate chain in PEM for STARTTLS. It is read again when it changes. Empty: STARTTLS is not offered."`
	TLSKey  string `key:"tls_key" default:"" doc:"File with the private key in PEM that belongs to tls_cert."`

	MaxMessage    mail.Size `key:"max_message" default:"50MB" reload:"yes" doc:"Largest message as the client sends it; larger ones are refused with 552 5.3.4."`
	MaxRecipients int       `key:"max_recipients" default:"1000" reload:"yes" doc:"Recipients of one message; more are answered 452 4.5.3, and the client sends again for them."`
	MaxLine       int       `key:"max_line" default:"10240" reload:"yes" doc:"Octets in one line of a message without its CRLF. RFC 5322 allows 998, but real mail has longer ones."`
	MaxHeader     mail.Size `key:"max_header" default:"256KiB" reload:"yes" doc:"Size of a message's header."`
	MaxHops       int       `key:"max_hops" default:"100" reload:"yes" doc:"Received fields in a message; more is a loop (RFC 5321 section 6.3) and refused with 554 5.4.6."`

	MaxConnections int `key:"max_connections" default:"1000" reload:"yes" doc:"Connections at one time; more get 421 4.7.0."`
	MaxPerAddress  int `key:"max_per_address" default:"100" reload:"yes" doc:"Connections at one time from one IPv4 address or one IPv6 /64; more get 421 4.7.0."`
	MaxMessages    int `key:"max_messages" default:"10000" reload:"yes" doc:"Messages on one connection; at the next one the client is asked to connect anew."`
	MaxErrors      int `key:"max_errors" default:"20" reload:"yes" doc:"Wrong commands on one connection since its last accepted message; then it is closed with 421 4.7.0."`
	MaxRefused     int `key:"max_refused" default:"200" reload:"yes" doc:"Refused recipients on one connection since its last accepted message; then it is closed with 421 4.7.0."`
	MaxJunk        int `key:"max_junk" default:"1000" reload:"yes" doc:"Commands that bring no mail forward (NOOP, RSET, EHLO, VRFY and the like) on one connection since its last accepted message; then it is closed with 421 4.7.0."`

	SpillAt       mail.Size `key:"spill_at" default:"256KiB" reload:"yes" doc:"Messages that are larger than this wait in a temporary file until they are stored while messages that are coming in use more than half of max_body_memory; the other half is for smaller ones."`
	MaxBodyMemory mail.Size `key:"max_body_memory" default:"64MiB" reload:"yes" doc:"Memory for messages that are coming in, over all connections. When three quarters are in use, they wait in temporary files from 16 KiB on; without room for a new one it is answered 452 4.3.1."`

	IdleTimeout    time.Duration `key:"idle_timeout" default:"5m" reload:"yes" doc:"How long a client may be silent, or take for one command line. RFC 5321 section 4.5.3.2.7 wants at least 5 minutes."`
	SessionTimeout time.Duration `key:"session_timeout" default:"2h" reload:"yes" doc:"How long a connection may last."`
	DataGrace      time.Duration `key:"data_grace" default:"5m" reload:"yes" doc:"How long a message may take before min_rate counts."`
	MinRate        mail.Size     `key:"min_rate" default:"500" reload:"yes" doc:"Bytes per second that a client must bring on average once data_grace is over."`
	WriteTimeout   time.Duration `key:"write_timeout" default:"1m" reload:"yes" doc:"How long a client may take to read a reply."`
	EnqueueTimeout time.Duration `key:"enqueue_timeout" default:"30s" reload:"yes" doc:"How long storing a message may take; then the client gets 451 4.3.0."`
	StopTimeout    time.Duration `key:"stop_timeout" default:"10s" reload:"yes" doc:"How long messages on their way in may take when the server stops."`

	GreetWait time.Duration `key:"greet_wait" default:"500ms" reload:"yes" doc:"How long to wait before the greeting. A client that speaks first is refused with 554 5.5.1. 0: no wait and no such check."`
	GreetSkip []string      `key:"greet_skip" default:"127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10" reload:"yes" doc:"Addresses and networks that are greeted at once."`
	Proxies   []string      `key:"proxies" default:"" reload:"yes" doc:"Addresses and networks of load balancers. Their connections must begin with a PROXY protocol header (v1 or v2); nobody else's may."`
}

// Largest values that make sense; past them a number is a slip of the pen.
const (
	maxConnections = 100_000
	maxLineLimit   = 1 << 20
	maxSpill       = 16 << 20
)

// Check says what is wrong, one error per key.
func (c Config) Check() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+": "+format, args...))
	}
	count := func(key string, n, least, most int64) {
		if n < least || n > most {
			bad(key, "%d is not allowed; use %d to %d", n, least, most)
		}
	}
	wait := func(key string, d, least time.Duration) {
		if d < least {
			bad(key, "%s is not allowed; use %s or more", d, least)
		}
	}
	if len(c.Listen) == 0 {
		bad("listen", "no address; write for example 127.0.0.1:2525")
	}
	for _, a := range c.Listen {
		if _, _, err := net.SplitHostPort(a); err != nil {
			bad("listen", "%q is not host:port: %v", a, err)
		}
	}
	if c.Postmaster != "" {
		if _, err := mail.ParseAddress(c.Postmaster); err != nil {
			bad("postmaster", "%v", err)
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls_cert", "tls_cert and tls_key are set together or not at all")
	}
	count("max_message", int64(c.MaxMessage), 64<<10, spool.MaxBodyBytes-1<<20)
	count("max_recipients", int64(c.MaxRecipients), 100, spool.MaxRecipients) // 100: RFC 5321 section 4.5.3.1.8
	count("max_line", int64(c.MaxLine), 998, maxLineLimit)
	count("max_header", int64(c.MaxHeader), 16<<10, 16<<20)
	count("max_hops", int64(c.MaxHops), 10, 1000)
	count("max_connections", int64(c.MaxConnections), 1, maxConnections)
	count("max_per_address", int64(c.MaxPerAddress), 1, maxConnections)
	count("max_messages", int64(c.MaxMessages), 1, 1e9)
	count("max_errors", int64(c.MaxErrors), 1, 1e6)
	count("max_refused", int64(c.MaxRefused), 1, 1e6)
	count("max_junk", int64(c.MaxJunk), 10, 1e6)
	count("spill_at", int64(c.SpillAt), chunkBytes, maxSpill)
	count("max_body_memory", int64(c.MaxBodyMemory), 1<<20, 1<<40)
	count("min_rate", int64(c.MinRate), 1, 1<<30)
	wait("idle_timeout", c.IdleTimeout, time.Second)
	wait("session_timeout", c.SessionTimeout, time.Second)
	wait("data_grace", c.DataGrace, time.Second)
	wait("write_timeout", c.WriteTimeout, time.Second)
	wait("enqueue_timeout", c.EnqueueTimeout, time.Second)
	wait("stop_timeout", c.StopTimeout, 0)
	if c.GreetWait < 0 || c.GreetWait > time.Minute {
		bad("greet_wait", "%s is not allowed; use 0 to 1m", c.GreetWait)
	}
	if _, err := parseNetworks(c.GreetSkip); err != nil {
		bad("greet_skip", "%v", err)
	}
	if _, err := parseNetworks(c.Proxies); err != nil {
		bad("proxies", "%v", err)
	}
	return errors.Join(errs...)
}

// settings are a Config made ready for use. They do not change; a new Config
// makes new ones, and a session keeps those it began with.
type settings struct {
	Config
	Hostname   string
	greetSkip  networks
	proxies    networks
	postmaster mail.Address
	wire       *strict.Config
}

func newSettings(c Config, hostname string) (*settings, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	s := &settings{Config: c}
	s.greetSkip, _ = parseNetworks(c.GreetSkip)
	s.proxies, _ = parseNetworks(c.Proxies)
	if c.Postmaster != "" {
		s.postmaster, _ = mail.ParseAddress(c.Postmaster)
	}
	if s.Hostname = hostname; !validHelo(hostname) {
		s.Hostname = "localhost"
	}
	s.wire = s.wireConfig()
	return s, nil
}

// networks is a short list; longer ones would want a tree.
type networks []netip.Prefix

func parseNetworks(list []string) (networks, error) {
	var out networks
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network such as 192.0.2.0/24", s)
		}
		out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
	}
	return out, nil
}

func (n networks) contain(a netip.Addr) bool {
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
