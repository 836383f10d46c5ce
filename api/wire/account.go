package wire

import (
	"time"

	"bsmtpd/mail"
)

// Account is one customer subscription.
type Account struct {
	Login     mail.Login   `json:"login" doc:"the access login name" example:"jansen"`
	Addresses []string     `json:"addresses,omitempty" doc:"fixed IP addresses; each belongs to one account" example:"[\"192.0.2.10\"]"`
	Plan      string       `json:"plan,omitempty" doc:"free or paid; empty: free"`
	Quota     int64        `json:"quota,omitempty" doc:"bytes; 0: the default"`
	Contact   mail.Address `json:"contact,omitempty" doc:"address of the technical contact"`
	Locale    string       `json:"locale,omitempty" doc:"en or nl; empty: en"`
	Access    string       `json:"access,omitempty" doc:"dialup, isdn or adsl"`
	Inactive  string       `json:"inactive,omitempty" doc:"why the account takes no mail; empty: it is active"`
	Route     string       `json:"route,omitempty" doc:"HOST[:PORT][/none|require|verify]; empty: the first fixed address, port 25" example:"mail.example.nl:2525"`
	Aliases   []string     `json:"aliases,omitempty" doc:"local parts beside the login at the provider's domains"`
	Filtered  bool         `json:"filtered,omitempty" doc:"the spam filter is on"`
	Created   time.Time    `json:"created,omitzero" doc:"set by the server"`
	Changed   time.Time    `json:"changed,omitzero" doc:"set by the server"`
	Version   uint64       `json:"version,omitempty" doc:"grows with every change; when given with PUT, that version must still be there"`
}

// AccountInfo is an account with what belongs to it.
type AccountInfo struct {
	Account
	Domains    []Domain `json:"domains"`
	QuotaBytes int64    `json:"quota_bytes" doc:"the quota in force"`
	UsedBytes  int64    `json:"used_bytes"`
	Messages   int64    `json:"messages" doc:"queue and mailbox together"`
}

// AccountPatch changes what is given and leaves the rest. Lists are replaced as a
// whole, or changed item by item with add and remove.
type AccountPatch struct {
	Addresses       *[]string     `json:"addresses,omitempty"`
	AddAddresses    []string      `json:"add_addresses,omitempty"`
	RemoveAddresses []string      `json:"remove_addresses,omitempty"`
	Plan            *string       `json:"plan,omitempty"`
	Quota           *int64        `json:"quota,omitempty"`
	Contact         *mail.Address `json:"contact,omitempty"`
	Locale          *string       `json:"locale,omitempty"`
	Access          *string       `json:"access,omitempty"`
	Inactive        *string       `json:"inactive,omitempty"`
	Route           *string       `json:"route,omitempty"`
	Aliases         *[]string     `json:"aliases,omitempty"`
	AddAliases      []string      `json:"add_aliases,omitempty"`
	RemoveAliases   []string      `json:"remove_aliases,omitempty"`
	Filtered        *bool         `json:"filtered,omitempty"`
}

// Put says what became of a write.
type Put struct {
	Version uint64 `json:"version"`
	Created bool   `json:"created"`
}

// Domain is a mail domain of one account.
type Domain struct {
	Name    mail.Domain `json:"domain" example:"jansen.example"`
	Login   mail.Login  `json:"account" doc:"login of the account that it belongs to"`
	Route   string      `json:"route,omitempty" doc:"as of an account; empty: the account's"`
	Created time.Time   `json:"created,omitzero"`
	Changed time.Time   `json:"changed,omitzero"`
	Version uint64      `json:"version,omitempty"`
}

// DomainPatch changes what is given and leaves the rest.
type DomainPatch struct {
	Login *mail.Login `json:"account,omitempty"`
	Route *string     `json:"route,omitempty"`
}

// DomainCheck says whether a domain's mail comes here and where it goes.
type DomainCheck struct {
	Domain  mail.Domain `json:"domain"`
	Login   mail.Login  `json:"account"`
	Route   string      `json:"route" doc:"the route in force"`
	MX      []string    `json:"mx" doc:"'10 mx1.example.net', as DNS has them"`
	Verdict Verdict     `json:"verdict" enum:"skip,ok,warn,bad"`
	Checks  []Check     `json:"checks"`
}

// Explain answers: why is my mail not arriving?
type Explain struct {
	Login    mail.Login    `json:"account"`
	At       time.Time     `json:"at"`
	Verdict  Verdict       `json:"verdict" enum:"skip,ok,warn,bad"`
	Summary  string        `json:"summary" doc:"the worst finding in a sentence"`
	Checks   []Check       `json:"checks"`
	Domains  []DomainCheck `json:"domains"`
	Queue    *QueueSummary `json:"queue,omitempty" doc:"none where nothing was ever queued"`
	Presence *Presence     `json:"presence,omitempty"`
	Banner   string        `json:"banner,omitempty" doc:"what port 25 said just now, or in the last attempt"`
}
