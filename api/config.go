package api

import (
	"errors"
	"fmt"
	"net"
	"time"

	"bsmtpd/mail"
)

// Config is what an operator can set.
type Config struct {
	Address        string        `key:"address" default:"127.0.0.1:8025" doc:"Where the HTTP API, the metrics and the health checks listen, host:port. Empty: only on the admin socket in the data directory."`
	TLSCert        string        `key:"tls_cert" default:"" doc:"File with the certificate chain in PEM for HTTPS at address. It is read again when it changes. Empty: plain HTTP, over which tokens can be read on the way."`
	TLSKey         string        `key:"tls_key" default:"" doc:"File with the private key of tls_cert in PEM."`
	TokenFile      string        `key:"token_file" default:"" doc:"File of tokens for callers over TCP, lines of 'name scope sha256hex': scope is admin, read or login, sha256hex the SHA-256 of the token in hexadecimal. Empty: only the token in the data directory's api-token, made at the first start, with scope admin." reload:"yes"`
	MXHosts        []string      `key:"mx_hosts" default:"" doc:"Host names to which the MX records of customers' domains must point, best first. Empty: this server's host name." reload:"yes"`
	MaxConnections int           `key:"max_connections" default:"256" doc:"Connections at one time, on the admin socket and on TCP each. More get 503."`
	MaxImport      mail.Size     `key:"max_import" default:"1GiB" doc:"Largest file of accounts that is imported in one call." reload:"yes"`
	ReadTimeout    time.Duration `key:"read_timeout" default:"30s" doc:"How long a caller may leave the server waiting for the next part of a request." reload:"yes"`
	WriteTimeout   time.Duration `key:"write_timeout" default:"60s" doc:"How long a caller may take over the next part of an answer." reload:"yes"`
	ProbeTimeout   time.Duration `key:"probe_timeout" default:"5s" doc:"How long 'account explain' and 'domain check' wait for DNS, and for a customer's server to say its banner." reload:"yes"`
}

// Check reports what is not possible.
func (c Config) Check() error {
	var errs []error
	if c.Address != "" {
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			errs = append(errs, fmt.Errorf("address: %q is not host:port; for example 127.0.0.1:8025", c.Address))
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("tls_cert: tls_cert and tls_key are set together or not at all"))
	}
	if c.MaxConnections < 1 || c.MaxConnections > 65536 {
		errs = append(errs, fmt.Errorf("max_connections: %d is not allowed; use 1 to 65536", c.MaxConnections))
	}
	if c.MaxImport < 1 {
		errs = append(errs, errors.New("max_import: 0 is not allowed; use 1B or more"))
	}
	for _, h := range c.MXHosts {
		if _, err := mail.ParseDomain(h); err != nil {
			errs = append(errs, fmt.Errorf("mx_hosts: %q is not a host name: %w", h, err))
		}
	}
	for _, d := range []struct {
		key string
		v   time.Duration
	}{{"read_timeout", c.ReadTimeout}, {"write_timeout", c.WriteTimeout}, {"probe_timeout", c.ProbeTimeout}} {
		if d.v < 100*time.Millisecond || d.v > time.Hour {
			errs = append(errs, fmt.Errorf("%s: %s is not allowed; use 100ms to 1h", d.key, d.v))
		}
	}
	return errors.Join(errs...)
}
