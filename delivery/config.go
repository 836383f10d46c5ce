package delivery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"bsmtpd/mail"
)

// Config is what an operator can set about pushing mail. All of it can change
// while the server runs: sessions take what is set when they begin.
type Config struct {
	Sessions              int           `key:"sessions" default:"200" doc:"Push sessions of this node at the same time. A quarter of them is kept free of timers and sweeps, which mostly meet servers that are offline." reload:"yes"`
	SessionsPerNetwork    int           `key:"sessions_per_network" default:"20" doc:"Push sessions to one network (IPv4 /24, IPv6 /64) at the same time. It counts accounts whose route is an address. Zero: no limit." reload:"yes"`
	MaxWaiting            int           `key:"max_waiting" default:"200000" doc:"Queues on the list of the planner. Others wait in the spool until there is room." reload:"yes"`
	ConnectionsPerAccount int           `key:"connections_per_account" default:"1" doc:"Connections of one session to the customer's server. With 1 the order of arrival is kept; with more, messages may pass each other." reload:"yes"`
	SourceAddresses       []string      `key:"source_addresses" default:"" doc:"Addresses that pushes leave from, in turn. Customers let them through their firewalls. With addresses of one family only, servers of the other family are not tried. Empty: the system chooses." reload:"yes"`
	OutPort               int           `key:"out_port" default:"25" doc:"Port of mail servers in the world." reload:"yes"`
	Smarthost             string        `key:"smarthost" default:"" doc:"Server (HOST or HOST:PORT) that takes all mail to the world. Empty: the MX records of the domain are used." reload:"yes"`
	Bandwidth             mail.Size     `key:"bandwidth" default:"0" doc:"Bytes per second of message bodies that all pushes of this node send together. Zero: no limit." reload:"yes"`
	ConnectTimeout        time.Duration `key:"connect_timeout" default:"10s" doc:"Longest wait for a connection to one address." reload:"yes"`
	GreetingTimeout       time.Duration `key:"greeting_timeout" default:"1m" doc:"Longest wait for the banner, and for each answer until mail can be sent." reload:"yes"`
	CommandTimeout        time.Duration `key:"command_timeout" default:"5m" doc:"Longest time without progress while mail is being sent (RFC 5321 section 4.5.3.2)." reload:"yes"`
	DataTimeout           time.Duration `key:"data_timeout" default:"10m" doc:"Longest wait for the answer to the end of a message (RFC 5321 section 4.5.3.2.6)." reload:"yes"`
	SessionLimit          time.Duration `key:"session_limit" default:"1h" doc:"So long after its first connection a session begins no new message; the queue gets a new session in its turn." reload:"yes"`
	MessageLimit          time.Duration `key:"message_limit" default:"6h" doc:"After session_limit, the longest time for the messages in flight to end. 50 MB at 33.6 kbit/s take three and a half hours." reload:"yes"`
	Linger                time.Duration `key:"linger" default:"200ms" doc:"How long a session waits for more mail, with the queue empty, before it quits. While other queues wait for its place it does not." reload:"yes"`
	WindowMessages        int           `key:"window_messages" default:"100" doc:"Messages in flight over one connection without an answer. If the line breaks, so many may arrive twice." reload:"yes"`
	WindowBytes           mail.Size     `key:"window_bytes" default:"1MiB" doc:"Most bytes in flight over one connection without an answer, a single larger message excepted. A connection begins with 64 KiB and takes more while that makes the answers come faster." reload:"yes"`
	ClaimLife             time.Duration `key:"claim_life" default:"10m" doc:"How long a session may hold a queue without a sign of life. Then another session may begin, also on another node." reload:"yes"`
	ReportEvery           time.Duration `key:"report_every" default:"50ms" doc:"Longest time that results are collected before they are reported." reload:"yes"`
	StopTimeout           time.Duration `key:"stop_timeout" default:"20s" doc:"How long messages in flight may end when the server stops." reload:"yes"`
	PixPause              time.Duration `key:"pix_pause" default:"200ms" doc:"Pause before the last segment of a message that passes a PIX firewall, so that it travels alone." reload:"yes"`
}

// Check reports what is not possible.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, n := range []struct {
		key           string
		value, lo, hi int
	}{
		{"sessions", c.Sessions, 1, 20_000},
		{"sessions_per_network", c.SessionsPerNetwork, 0, 20_000},
		{"max_waiting", c.MaxWaiting, 100, 10_000_000},
		{"connections_per_account", c.ConnectionsPerAccount, 1, 50},
		{"out_port", c.OutPort, 1, 65535},
		{"window_messages", c.WindowMessages, 1, 10_000},
	} {
		if n.value < n.lo || n.value > n.hi {
			bad("%s: %d is not allowed; use %d to %d", n.key, n.value, n.lo, n.hi)
		}
	}
	for _, d := range []struct {
		key           string
		value, lo, hi time.Duration
	}{
		{"connect_timeout", c.ConnectTimeout, time.Millisecond, 5 * time.Minute},
		{"greeting_timeout", c.GreetingTimeout, time.Millisecond, time.Hour},
		{"command_timeout", c.CommandTimeout, time.Millisecond, time.Hour},
		{"data_timeout", c.DataTimeout, time.Millisecond, 2 * time.Hour},
		{"session_limit", c.SessionLimit, time.Second, 7 * 24 * time.Hour},
		{"message_limit", c.MessageLimit, time.Second, 7 * 24 * time.Hour},
		{"linger", c.Linger, 0, 5 * time.Minute},
		{"claim_life", c.ClaimLife, 10 * time.Second, 24 * time.Hour},
		{"report_every", c.ReportEvery, time.Millisecond, 10 * time.Second},
		{"stop_timeout", c.StopTimeout, 0, 10 * time.Minute},
		{"pix_pause", c.PixPause, 0, time.Minute},
	} {
		if d.value < d.lo || d.value > d.hi {
			bad("%s: %s is not allowed; use %s to %s", d.key, d.value, d.lo, d.hi)
		}
	}
	if c.Bandwidth < 0 || c.Bandwidth > 0 && c.Bandwidth < 1024 {
		bad("bandwidth: %s per second is not allowed; use 0 for no limit, or 1KiB or more", c.Bandwidth)
	}
	if c.WindowBytes < 1 || c.WindowBytes > 1<<30 {
		bad("window_bytes: %s is not allowed; use 1B to 1GiB", c.WindowBytes)
	}
	if _, err := parseSources(c.SourceAddresses); err != nil {
		errs = append(errs, err)
	}
	if c.Smarthost != "" {
		if _, _, err := splitHost(c.Smarthost, c.OutPort); err != nil {
			bad("smarthost: %w", err)
		}
	}
	return errors.Join(errs...)
}

// limits are the planner's.
func (c *Config) limits() planLimits {
	return planLimits{Sessions: c.Sessions, Background: max(1, c.Sessions*3/4), PerNetwork: c.SessionsPerNetwork, MaxWaiting: c.MaxWaiting}
}

// splitHost reads "host", "host:port", an IP address or "[address]:port".
func splitHost(s string, port int) (string, uint16, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.String(), uint16(port), nil
	}
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		host, digits = s, strconv.Itoa(port)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q: the port is not a number from 1 to 65535", s)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, uint16(n), nil
	}
	d, err := mail.ParseDomain(host)
	if err != nil {
		return "", 0, fmt.Errorf("%q is neither a host name nor an address: %w", s, err)
	}
	return string(d), uint16(n), nil
}
