// Package directory knows the customers: accounts, their domains, addresses and
// routes, who is online, and who changed what. It decides only; see cluster for
// who applies its commands and api for who may send them.
package directory

import (
	"net/netip"
	"time"

	"bsmtpd/mail"
)

// Plan is what the customer pays.
type Plan string

// The plans.
const (
	PlanFree Plan = "free"
	PlanPaid Plan = "paid"
)

// Access is how the customer's line is built.
type Access string

// The kinds of access.
const (
	AccessDialup Access = "dialup"
	AccessISDN   Access = "isdn"
	AccessADSL   Access = "adsl"
)

// Locale is the language of messages to the customer.
type Locale string

// The languages.
const (
	LocaleEN Locale = "en"
	LocaleNL Locale = "nl"
)

// TLSPolicy says what a push does about TLS on a route.
type TLSPolicy string

// The policies. The zero value is TLSOpportunistic.
const (
	TLSOpportunistic TLSPolicy = ""        // STARTTLS when offered, any certificate
	TLSNone          TLSPolicy = "none"    // never STARTTLS
	TLSRequire       TLSPolicy = "require" // STARTTLS or defer, any certificate
	TLSVerify        TLSPolicy = "verify"  // STARTTLS with a valid certificate for the route's host, or defer
)

// DefaultPort is where a route goes that names no port.
const DefaultPort = 25

// Route is where mail is pushed. The zero Route means: not set here.
type Route struct {
	Host string    `cbor:"1,keyasint,omitempty"` // host name, or IP address without brackets
	Port uint16    `cbor:"2,keyasint,omitempty"` // 0: DefaultPort
	TLS  TLSPolicy `cbor:"3,keyasint,omitempty"`
}

// Account is one customer subscription. Its JSON form is that of the audit and of
// JSON lines (exchange.go).
type Account struct {
	Login     mail.Login   `cbor:"1,keyasint" json:"login"`
	Addresses []netip.Addr `cbor:"2,keyasint,omitempty" json:"addresses,omitempty"` // fixed addresses; each belongs to one account
	Plan      Plan         `cbor:"3,keyasint,omitempty" json:"plan,omitempty"`
	Quota     int64        `cbor:"4,keyasint,omitempty" json:"quota,omitempty"` // bytes; 0: the default of Limits
	Contact   mail.Address `cbor:"5,keyasint,omitempty" json:"contact,omitempty"`
	Locale    Locale       `cbor:"6,keyasint,omitempty" json:"locale,omitempty"`
	Inactive  string       `cbor:"7,keyasint,omitempty" json:"inactive,omitempty"` // why the account takes no mail; empty: active
	Access    Access       `cbor:"8,keyasint,omitempty" json:"access,omitempty"`
	Route     Route        `cbor:"9,keyasint,omitempty" json:"route,omitzero"`      // zero: the first fixed address, port 25
	Aliases   []string     `cbor:"10,keyasint,omitempty" json:"aliases,omitempty"`  // local parts beside the login at the provider's domains
	Filtered  bool         `cbor:"11,keyasint,omitempty" json:"filtered,omitempty"` // the spam filter is on
	Created   mail.Time    `cbor:"12,keyasint,omitempty" json:"-"`
	Changed   mail.Time    `cbor:"13,keyasint,omitempty" json:"-"`
	Version   uint64       `cbor:"14,keyasint,omitempty" json:"version,omitempty"` // grows with every change, 1 at first
}

// Domain is a mail domain that belongs to one account.
type Domain struct {
	Name    mail.Domain `cbor:"1,keyasint" json:"domain"`
	Login   mail.Login  `cbor:"2,keyasint" json:"account"`
	Route   Route       `cbor:"3,keyasint,omitempty" json:"route,omitzero"` // zero: the account's
	Created mail.Time   `cbor:"4,keyasint,omitempty" json:"-"`
	Changed mail.Time   `cbor:"5,keyasint,omitempty" json:"-"`
	Version uint64      `cbor:"6,keyasint,omitempty" json:"version,omitempty"`
}

// Limits are the part of the replicated settings that is about customers.
type Limits struct {
	Quota         int64 `cbor:"1,keyasint"` // bytes, of an account without its own
	QuotaFiltered int64 `cbor:"2,keyasint"` // likewise, with the spam filter on

	// SessionLife is how long a session of which nothing is heard stays online. 0:
	// until its Stop or its access server's restart. Settings of builds that knew
	// no such end read as that.
	SessionLife time.Duration `cbor:"3,keyasint,omitempty"`
}

// QuotaOf is the account's quota in bytes.
func (l Limits) QuotaOf(a *Account) int64 {
	switch {
	case a.Quota > 0:
		return a.Quota
	case a.Filtered:
		return l.QuotaFiltered
	}
	return l.Quota
}
