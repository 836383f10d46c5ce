package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// login takes the time from an access server's packet to the first octets at the
// customer's server, one login at a time.
func login(ctx context.Context, b *bench) error {
	c := &crowd{newBsmtpd(b), size(b, 100_000, 1000)}
	defer c.stop()
	n := size(b, 2000, 100)
	far, err := farAddrs(1)
	if err != nil {
		return err
	}
	if err := b.waiting(ctx, c, nil, func(int) string { return far[0] }); err != nil {
		return err
	}
	arrivals := make(chan arrival, c.size)
	k, err := startCustomers(far, func(a arrival) { arrivals <- a }, "PIPELINING", "CHUNKING")
	if err != nil {
		return err
	}
	defer k.stop()
	a, err := newAccess(c.radius)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	profiled := b.profile(c.bsmtpd, 0, 10*time.Second)
	defer profiled()
	took := make([]float64, 0, n)
	for i := range n {
		who := (i * 7919) % c.size // no neighbours
		sent, err := a.login(ctx, crowdLogin(who))
		if err != nil {
			return err
		}
		hello, err := firstByte(ctx, arrivals, crowdAddress(who))
		if err != nil {
			return err
		}
		took = append(took, hello.Sub(sent).Seconds()*1000)
	}
	slices.Sort(took)
	what := fmt.Sprintf("login to first byte, %s accounts with mail, ", number(float64(c.size)))
	b.figures = append(b.figures,
		figure{Name: what + "p50", Unit: "ms", Bsmtpd: []float64{quantile(took, 0.5)}, Target: target{AtMost: 20}},
		figure{Name: what + "p99", Unit: "ms", Bsmtpd: []float64{quantile(took, 0.99)}, Target: target{AtMost: 250}, Note: fmt.Sprintf("most: %s", number(took[len(took)-1]))})
	return nil
}

// firstByte waits for the mail of one customer and gives the time of the first
// octets of its connection.
func firstByte(ctx context.Context, arrivals <-chan arrival, to string) (time.Time, error) {
	patience := time.After(30 * time.Second)
	for {
		select {
		case a := <-arrivals:
			if a.to == to {
				return a.hello, nil
			}
		case <-patience:
			return time.Time{}, fmt.Errorf("no mail came for %s within 30 s of the login", to)
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

// quantile of sorted values.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
