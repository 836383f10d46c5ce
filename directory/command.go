package directory

import "bsmtpd/mail"

// Bounds of the commands, so that one entry of the log stays small.
const (
	MaxBatch     = 500 // accounts or domains in one command
	MaxAddresses = 64  // fixed addresses of an account
	MaxAliases   = 64
	MaxDomains   = 10_000 // domains of an account
)

// PutAccounts adds or replaces accounts. The items are independent: one that
// fails leaves the others.
type PutAccounts struct {
	Items []PutAccount `cbor:"1,keyasint"`
	By    string       `cbor:"2,keyasint"` // who, for the audit: "root@admin.sock", "token:portal"
}

// PutAccount is one account to write. IfVersion 0: it must not exist yet;
// otherwise it must have that version; AnyVersion: either.
type PutAccount struct {
	Account   Account `cbor:"1,keyasint"`
	IfVersion uint64  `cbor:"2,keyasint,omitempty"`
}

// AnyVersion as IfVersion writes whatever is there.
const AnyVersion = ^uint64(0)

// PutDomains adds or replaces domains, in the manner of PutAccounts.
type PutDomains struct {
	Items []PutDomain `cbor:"1,keyasint"`
	By    string      `cbor:"2,keyasint"`
}

// PutDomain is one domain to write.
type PutDomain struct {
	Domain    Domain `cbor:"1,keyasint"`
	IfVersion uint64 `cbor:"2,keyasint,omitempty"`
}

// RemoveAccount removes an account that has no domains; the machine refuses one
// that still holds mail.
type RemoveAccount struct {
	Login mail.Login `cbor:"1,keyasint"`
	By    string     `cbor:"2,keyasint"`
}

// RemoveDomain removes a domain. Mail that is queued for it stays queued for the
// account.
type RemoveDomain struct {
	Name mail.Domain `cbor:"1,keyasint"`
	By   string      `cbor:"2,keyasint"`
}

// Put says what became of an item of PutAccounts or PutDomains.
type Put struct {
	Version uint64 `cbor:"1,keyasint,omitempty"` // the new one
	Created bool   `cbor:"2,keyasint,omitempty"`
	Kind    uint8  `cbor:"3,keyasint,omitempty"` // a mail.Kind when it failed
	Text    string `cbor:"4,keyasint,omitempty"` // why; empty: done
}

// Err is the failure as an error, or nil.
func (p Put) Err() error {
	if p.Text == "" {
		return nil
	}
	return mail.Fail(mail.Kind(p.Kind), p.Text)
}
