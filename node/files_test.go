package node

import (
	"testing"

	"bsmtpd/config"
	"bsmtpd/mail"
)

// Whatever the system allows, the node's own files come first, and what is left is
// shared out without more than there is.
func TestTheNodeTakesNoMoreConnectionsThanItMayOpen(t *testing.T) {
	var c config.Config
	c.SMTPD.MaxConnections, c.Delivery.Sessions, c.Delivery.ConnectionsPerAccount, c.API.MaxConnections = 1000, 200, 1, 256
	for _, limit := range []uint64{0, 1 << 20, 65536, 1 << 40} {
		if got, _, lowered, err := fit(c, limit); err != nil || lowered != "" || got.SMTPD.MaxConnections != 1000 {
			t.Errorf("%d open files: %q, %v", limit, lowered, err)
		}
	}
	for limit := uint64(leastFiles); limit < 5000; limit += 7 {
		got, rows, lowered, err := fit(c, limit)
		if err != nil {
			t.Fatal(err)
		}
		need := rows + ownFiles + perSession*got.SMTPD.MaxConnections + got.Delivery.Sessions + 2*got.API.MaxConnections
		if uint64(need) > limit || got.SMTPD.MaxConnections < 1 || (lowered == "") != (got.SMTPD.MaxConnections == 1000 && got.Delivery.Sessions == 200) {
			t.Fatalf("%d open files: %d needed, %q", limit, need, lowered)
		}
	}
	if _, _, _, err := fit(c, leastFiles-1); mail.KindOf(err) != mail.Invalid {
		t.Errorf("too few open files: %v", err)
	}
}
