package simtest

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bsmtpd/host"
)

// DNS is a made-up name service. What nobody has put into it does not exist.
type DNS struct {
	mu    sync.Mutex // guards what follows
	mx    map[string][]*net.MX
	addrs map[string][]netip.Addr
	down  bool
}

var _ host.DNS = (*DNS)(nil)

// dnsLatency is how long an answer takes; dnsPatience how long one that does not
// come is waited for.
const (
	dnsLatency  = 5 * time.Millisecond
	dnsPatience = 10 * time.Second
)

// NewDNS makes an empty one.
func NewDNS() *DNS { return &DNS{mx: map[string][]*net.MX{}, addrs: map[string][]netip.Addr{}} }

// SetMX gives a domain its MX records; host "." is the null MX of RFC 7505.
func (d *DNS) SetMX(domain string, hosts ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mx[domain] = nil
	for i, h := range hosts {
		d.mx[domain] = append(d.mx[domain], &net.MX{Host: h, Pref: uint16(10 * i)})
	}
}

// SetAddrs gives a host its addresses.
func (d *DNS) SetAddrs(name string, addrs ...netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs[name] = addrs
}

// Down lets no question be answered.
func (d *DNS) Down(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = on
}

func (d *DNS) isDown() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.down
}

// ask waits as a question does.
func (d *DNS) ask(ctx context.Context, name string) error {
	if !d.isDown() {
		return host.Sleep(ctx, dnsLatency)
	}
	if err := host.Sleep(ctx, dnsPatience); err != nil {
		return err
	}
	return &net.DNSError{Err: "no answer", Name: name, IsTimeout: true, IsTemporary: true}
}

func notFound(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// MX implements host.DNS.
func (d *DNS) MX(ctx context.Context, domain string) ([]*net.MX, error) {
	if err := d.ask(ctx, domain); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.mx[domain]; len(r) > 0 {
		return slices.Clone(r), nil
	}
	return nil, notFound(domain)
}

// Addrs implements host.DNS.
func (d *DNS) Addrs(ctx context.Context, name string) ([]netip.Addr, error) {
	if err := d.ask(ctx, name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.addrs[name]; len(r) > 0 {
		return slices.Clone(r), nil
	}
	return nil, notFound(name)
}

// TXT implements host.DNS; nobody has put any into it.
func (d *DNS) TXT(ctx context.Context, name string) ([]string, error) {
	if err := d.ask(ctx, name); err != nil {
		return nil, err
	}
	return nil, notFound(name)
}

// Names implements host.DNS; there are none.
func (d *DNS) Names(ctx context.Context, a netip.Addr) ([]string, error) {
	if err := d.ask(ctx, a.String()); err != nil {
		return nil, err
	}
	return nil, notFound(a.String())
}
