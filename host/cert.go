package host

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// CertEvery is how often the files are looked at, at most.
	CertEvery    = 10 * time.Second
	maxCertBytes = 1 << 20
)

// Certs holds the certificate and takes a new one when its files change. The
// files are looked at during a handshake, so nothing runs while nobody comes.
type Certs struct {
	fs        FS
	cert, key string
	log       *slog.Logger
	conf      *tls.Config

	held    atomic.Pointer[heldCert]
	looking atomic.Bool // one handshake looks, the others go on with what is held
}

type heldCert struct {
	cert    *tls.Certificate
	stamp   certStamp // of the files it came from
	checked time.Time
}

type certStamp struct {
	cert, key   time.Time
	certN, keyN int64
}

// LoadCerts reads the files for the first time. Without files it returns nil. Errors
// begin with the names that the two settings have everywhere, tls_cert and tls_key.
func LoadCerts(fs FS, log *slog.Logger, cert, key string) (*Certs, error) {
	if cert == "" {
		return nil, nil
	}
	c := &Certs{fs: fs, cert: cert, key: key, log: log}
	c.conf = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
	stamp, err := c.stamp()
	if err == nil {
		err = c.load(stamp)
	}
	if err != nil {
		return nil, fmt.Errorf("tls_cert, tls_key: %w", err)
	}
	return c, nil
}

// Config is for a server: TLS 1.2 or later, otherwise as the library thinks best.
func (c *Certs) Config() *tls.Config { return c.conf }

func (c *Certs) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	held := c.held.Load()
	if time.Since(held.checked) < CertEvery || !c.looking.CompareAndSwap(false, true) {
		return held.cert, nil
	}
	defer c.looking.Store(false)
	stamp, err := c.stamp()
	if err == nil && stamp != held.stamp {
		if err = c.load(stamp); err == nil {
			c.log.Info("a new TLS certificate is in use", "file", c.cert)
		}
	}
	if err != nil {
		c.log.Error("the TLS certificate has changed and is not usable; the old one stays in use", "file", c.cert, "err", err)
		c.held.Store(&heldCert{cert: held.cert, stamp: held.stamp, checked: time.Now()})
	} else if c.held.Load() == held {
		c.held.Store(&heldCert{cert: held.cert, stamp: stamp, checked: time.Now()})
	}
	return c.held.Load().cert, nil
}

func (c *Certs) stamp() (s certStamp, err error) {
	a, err := c.fs.Stat(c.cert)
	if err != nil {
		return s, err
	}
	b, err := c.fs.Stat(c.key)
	if err != nil {
		return s, err
	}
	return certStamp{a.ModTime(), b.ModTime(), a.Size(), b.Size()}, nil
}

func (c *Certs) load(stamp certStamp) error {
	cert, err := ReadFile(c.fs, c.cert, maxCertBytes)
	if err != nil {
		return err
	}
	key, err := ReadFile(c.fs, c.key, maxCertBytes)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.cert, c.key, err)
	}
	c.held.Store(&heldCert{cert: &pair, stamp: stamp, checked: time.Now()})
	return nil
}
