package login

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// DefaultSecret is the RADIUS secret of an unconfigured node. The whole world
// knows it, so it is good for clients on this machine only.
const DefaultSecret = "testing123"

const maxClients = 4096

// Config is how logins are learned of. The HTTP hook belongs to the API.
type Config struct {
	StripRealm  bool          `key:"strip_realm" default:"true" reload:"yes" doc:"Take the realm off a login name: jansen@example.net and EXAMPLE\\jansen become jansen. Without it such names are unknown logins."`
	SessionLife time.Duration `key:"session_life" default:"48h" reload:"yes" doc:"A session of which nothing is heard for this long counts as over: its Stop was lost. An Interim-Update brings it back, so let it be longer than the time between two of them, and than the longest session if the access servers send none. 0: it stays until its Stop, or until its access server restarts. This setting belongs to the cluster: the leader's is in force on every node."`
	Radius      Radius        `key:"radius" doc:"RADIUS accounting (RFC 2866). A request is answered when its event is committed, so that an access server sends it again if anything goes wrong."`
	Files       Files         `key:"files" doc:"Login files that scripts drop into a directory: NAME.login, complete by rename, with lines such as \"start jansen 192.0.2.10\" and \"stop jansen\"."`
}

// Radius is the settings of the accounting server.
type Radius struct {
	Listen  string        `key:"listen" default:"127.0.0.1:18130" doc:"UDP address and port for accounting requests. Empty: no RADIUS."`
	Clients []Client      `key:"clients" reload:"yes" doc:"Who may send requests; of several networks that hold an address the smallest counts. Empty: this machine, with the secret testing123."`
	Workers int           `key:"workers" default:"64" doc:"Requests that are worked on at the same time, 1 to 1024."`
	Queue   int           `key:"queue" default:"4096" doc:"Requests that may wait for a worker, 1 to 1000000; more are dropped and counted, and the access server sends them again."`
	Timeout time.Duration `key:"timeout" default:"5s" doc:"How long an event may take to be committed before its request is given up without an answer."`
}

// Client is one access server, or a network of them.
type Client struct {
	Network    string `key:"network" default:"" doc:"Address or network, for example 192.0.2.1 or 192.0.2.0/24."`
	Secret     string `key:"secret" default:"" secret:"yes" doc:"The secret shared with the client."`
	SecretFile string `key:"secret_file" default:"" doc:"File that holds the secret, instead of secret."`
}

// String leaves the secret out.
func (c Client) String() string { return "client " + c.Network }

// GoString leaves the secret out.
func (c Client) GoString() string { return c.String() }

// Files is the settings of the watched directory.
type Files struct {
	Dir    string        `key:"dir" default:"logins" doc:"The watched directory; a relative name is below the data directory. Empty: none is watched. Files that cannot be understood move to bad/ in it, with the reason beside them."`
	Rescan time.Duration `key:"rescan" default:"10s" doc:"How often to look into the directory even when the system reports no change there."`
}

// defaultClients are those of an empty list.
func defaultClients() []Client {
	return []Client{{Network: "127.0.0.0/8", Secret: DefaultSecret}, {Network: "::1/128", Secret: DefaultSecret}}
}

// Check reports every impossible value; each text begins with its key.
func (c Config) Check() error {
	var errs []error
	add := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	r := c.Radius
	if r.Listen != "" {
		hostname, _, err := net.SplitHostPort(r.Listen)
		switch ip, _ := netip.ParseAddr(hostname); {
		case err != nil:
			add("radius.listen", "%q is not an address and port; write for example 127.0.0.1:18130", r.Listen)
		case len(r.Clients) == 0 && !ip.IsLoopback() && hostname != "localhost":
			add("radius.clients", "name the access servers and their secrets when listen is not an address of this machine alone (%s)", r.Listen)
		}
	}
	if _, err := newClients(r.Clients); err != nil {
		errs = append(errs, err)
	}
	if r.Workers < 1 || r.Workers > 1024 {
		add("radius.workers", "%d is not allowed; use 1 to 1024", r.Workers)
	}
	if r.Queue < 1 || r.Queue > 1_000_000 {
		add("radius.queue", "%d is not allowed; use 1 to 1000000", r.Queue)
	}
	if r.Timeout < 100*time.Millisecond || r.Timeout > time.Minute {
		add("radius.timeout", "%s is not allowed; use 100ms to 1m", r.Timeout)
	}
	if c.SessionLife != 0 && (c.SessionLife < time.Hour || c.SessionLife > 365*24*time.Hour) {
		add("session_life", "%s is not allowed; use 1h to 8760h, or 0 for never", c.SessionLife)
	}
	if c.Files.Rescan < time.Second || c.Files.Rescan > time.Hour {
		add("files.rescan", "%s is not allowed; use 1s to 1h", c.Files.Rescan)
	}
	return errors.Join(errs...)
}
