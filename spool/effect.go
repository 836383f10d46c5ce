package spool

import "bsmtpd/mail"

// Effect is a hint that a row now asks for work. Losing one loses nothing: the
// work stands in rows, which Due and Owed read.
type Effect struct {
	Kind  EffectKind
	Queue QueueName
	Cause Cause
	Login mail.Login
	Text  string // of EffectDamaged: what is damaged, and how
}

// EffectKind is what is to be done.
type EffectKind uint8

// The effects.
const (
	EffectDue  EffectKind = iota // Queue is due now, or has new mail for the session at work
	EffectOwed                   // a bounce is owed
	EffectStop                   // the session at work on Queue is to end after the message in flight

	// A row did not decode and was set aside, or is passed over: somebody is to
	// look at it (Reader.Aside).
	EffectDamaged
)
