package wire

import (
	"time"

	"bsmtpd/mail"
)

// Suspension stops delivery; mail is still taken in and kept.
type Suspension struct {
	Scope  string    `json:"scope" doc:"all, or a queue: account/LOGIN or out/DOMAIN" example:"all"`
	Reason string    `json:"reason,omitempty" maxLength:"500"`
	Until  time.Time `json:"until,omitzero"`
	By     string    `json:"by,omitempty" doc:"set by the server"`
	At     time.Time `json:"at,omitzero" doc:"set by the server"`
}

// Sources are the addresses from which mail is pushed (B13), and what a customer
// puts into a firewall or mail server to let exactly those in.
type Sources struct {
	Addresses []string  `json:"addresses" doc:"empty: none is configured, the system chooses"`
	Snippets  []Snippet `json:"snippets"`
}

// Snippet is a piece of configuration for the customer's side.
type Snippet struct {
	For  string `json:"for" doc:"postfix, exchange, microsoft365, nftables, cisco or spf"`
	Text string `json:"text"`
}

// LoginEvent tells that a customer came online or went offline.
type LoginEvent struct {
	Login   mail.Login `json:"login" example:"jansen"`
	Address string     `json:"address,omitempty" doc:"framed IP address" example:"192.0.2.10"`
	Event   string     `json:"event,omitempty" enum:"start,stop,interim" doc:"empty: start"`
	NAS     string     `json:"nas,omitempty" maxLength:"253" doc:"access server"`
	Session string     `json:"session,omitempty" maxLength:"253" doc:"Acct-Session-Id; the same event of the same session is applied once"`
}

// LoginResult says what a login event led to.
type LoginResult struct {
	Login     mail.Login `json:"login"`
	Unknown   bool       `json:"unknown,omitempty" doc:"no account has this login: nothing was recorded, and sending the event again will not help"`
	Online    bool       `json:"online"`
	Duplicate bool       `json:"duplicate"`
	Triggered bool       `json:"triggered" doc:"an attempt was started"`
	Debounced bool       `json:"debounced" doc:"the last attempt by login is too recent; the timer still applies"`
	Double    string     `json:"double,omitempty" doc:"session: another session is online; address: not a fixed address of the account"`
	Queued    int64      `json:"queued" doc:"messages waiting"`
}

// Presence is who is online.
type Presence struct {
	Login    mail.Login `json:"login"`
	Online   bool       `json:"online"`
	Missed   bool       `json:"missed,omitempty" doc:"offline only because nothing was heard for login.session_life: a Stop was missed"`
	Since    time.Time  `json:"since,omitzero"`
	Last     time.Time  `json:"last,omitzero" doc:"last event"`
	Sessions []Session  `json:"sessions"`
	Doubles  int        `json:"doubles,omitempty" doc:"events that broke the one-session rule"`
	Double   string     `json:"double,omitempty" doc:"the last of them in words"`
	DoubleAt time.Time  `json:"double_at,omitzero"`
}

// Session is one line that is or was open.
type Session struct {
	NAS     string    `json:"nas,omitempty"`
	Session string    `json:"session,omitempty"`
	Address string    `json:"address,omitempty"`
	Online  bool      `json:"online"`
	Since   time.Time `json:"since,omitzero"`
	Last    time.Time `json:"last,omitzero" doc:"when it was last heard of"`
	Stopped time.Time `json:"stopped,omitzero"`
	Missed  bool      `json:"missed,omitempty" doc:"stopped is when login.session_life had gone by since last: a Stop was missed"`
}

// AuditRecord is one change by a person or program.
type AuditRecord struct {
	Seq    uint64    `json:"seq"`
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Action string    `json:"action"`
	Object string    `json:"object"`
	Before string    `json:"before,omitempty" doc:"JSON of the object"`
	After  string    `json:"after,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Status is how the node is.
type Status struct {
	Node     string    `json:"node"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started,omitzero"`
	Ready    bool      `json:"ready"`
	Reasons  []string  `json:"reasons,omitempty" doc:"why it is not ready"`
	Warnings []string  `json:"warnings,omitempty" doc:"what an operator must look at although the node is ready"`
	Leader   string    `json:"leader,omitempty"`
	Messages int64     `json:"messages" doc:"rows waiting in queues and mailboxes"`
	Bytes    int64     `json:"bytes"`
	Queues   int64     `json:"queues" doc:"queues that are not empty"`
	Failing  int64     `json:"failing" doc:"queues whose last attempt failed"`
	Active   int64     `json:"active" doc:"queues with a session at work"`
	Held     int64     `json:"held"`
	Sweep    time.Time `json:"last_sweep,omitzero"`
}
