package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"bsmtpd/api/wire"
)

// crowd is a bsmtpd with many customers, each with a domain of his own and a
// route to one of some servers.
type crowd struct {
	*bsmtpd
	size int
}

func crowdLogin(i int) string   { return fmt.Sprintf("c%06d", i) }
func crowdAddress(i int) string { return "info@" + crowdLogin(i) + ".example" }

// crowdMember is the customer whose address it is; false: it is nobody's.
func crowdMember(address string) (int, bool) {
	_, domain, _ := strings.Cut(address, "@c")
	n, err := strconv.Atoi(strings.TrimSuffix(domain, ".example"))
	return n, err == nil
}

// bring in the customers.
func (c *crowd) enrol(ctx context.Context, route func(i int) string) error {
	r, w := io.Pipe()
	go func() {
		fmt.Fprintln(w, "login,quota,route,domains")
		for i := range c.size {
			if _, err := fmt.Fprintf(w, "%s,1GiB,%s/none,%s.example\n", crowdLogin(i), route(i), crowdLogin(i)); err != nil {
				return
			}
		}
		w.Close()
	}()
	p, err := c.api.ImportAccounts(ctx, r, "csv", "", false, func(wire.Progress) {})
	r.Close()
	if err != nil {
		return err
	}
	if p.Created != int64(c.size) {
		return fmt.Errorf("%d accounts were made, not %d: %s", p.Created, c.size, strings.Join(p.Errors, "; "))
	}
	return nil
}

// wait until every customer's server was tried in vain.
func (c *crowd) allFailing(ctx context.Context) error {
	return until(ctx, time.Second, "all servers were tried in vain", func() (bool, error) {
		s, err := c.api.Status(ctx)
		return s.Failing == int64(c.size) && s.Active == 0, err
	})
}

// waiting is a crowd whose servers are down and who have one message of 4 KiB
// each.
func (b *bench) waiting(ctx context.Context, c *crowd, settings map[string]any, route func(i int) string) error {
	if err := c.start(ctx, setup{hold: true, settings: settings}); err != nil {
		return err
	}
	if err := c.enrol(ctx, route); err != nil {
		return err
	}
	f := fill{addr: c.smtp, connections: 64, length: 4096, to: crowdAddress}
	began := time.Now()
	if err := f.bring(ctx, 0, c.size, nil); err != nil {
		return err
	}
	if err := c.allFailing(ctx); err != nil {
		return err
	}
	b.say("    %d accounts have mail, after %s", c.size, time.Since(began).Round(time.Second))
	return nil
}

// farAddrs are the addresses of n customers' servers on one port where nobody
// listens yet.
func farAddrs(n int) ([]string, error) {
	free, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(free, ":")
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("127.1.%d.%d:%s", i/250, 1+i%250, port)
	}
	return out, nil
}
