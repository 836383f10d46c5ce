package api

import (
	"fmt"
	"strings"
	"time"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// since is how long ago t was.
func (e *explaining) since(t mail.Time) string { return ago(max(0, mail.At(e.now).Sub(t))) + " ago" }

func (e *explaining) active() wire.Check {
	if e.acct.Inactive != "" {
		return verdict("account", wire.Bad, fmt.Sprintf("make it active again: account set %s --active", e.acct.Login),
			"the account is inactive and its mail is refused: %s", e.acct.Inactive)
	}
	return verdict("account", wire.OK, "", "the account is active")
}

func (e *explaining) domains() wire.Check {
	if len(e.out.Domains) == 0 {
		return verdict("domains", wire.Bad, fmt.Sprintf("add one: domain add DOMAIN --account %s", e.acct.Login), "the account has no domain, so no mail comes in for it")
	}
	worst, checked := wire.Skipped, 0
	var wrong []wire.Check
	for _, d := range e.out.Domains {
		for _, c := range d.Checks {
			if c.Name != "mx" {
				continue
			}
			worst = wire.Worse(worst, c.Verdict)
			checked++
			if c.Verdict == wire.Warn || c.Verdict == wire.Bad {
				wrong = append(wrong, c)
			}
		}
	}
	switch {
	case len(wrong) == 1:
		return verdict("domains", worst, wrong[0].Advice, "%s", wrong[0].Found)
	case len(wrong) > 1:
		return verdict("domains", worst, "see each domain", "the MX records of %d of %s are wrong", len(wrong), plural(checked, "domain"))
	}
	if worst == wire.OK {
		return verdict("domains", wire.OK, "", "the MX records of %s point here", plural(min(len(e.out.Domains), maxCheckedDomains), "domain"))
	}
	return verdict("domains", wire.Skipped, "", "%s; MX records not checked", plural(len(e.out.Domains), "domain"))
}

func (e *explaining) routed() wire.Check {
	for _, d := range e.out.Domains {
		for _, c := range d.Checks {
			if c.Name == "route" && c.Verdict != wire.OK {
				return verdict("route", c.Verdict, c.Advice, "%s: %s", d.Domain, c.Found)
			}
		}
	}
	if e.route == (directory.Route{}) {
		return verdict("route", wire.Bad, fmt.Sprintf("account set %s --address IP, or --route HOST", e.acct.Login), "there is no route and no fixed address")
	}
	for _, d := range e.out.Domains {
		if d.Route != e.route.String() {
			return verdict("route", wire.OK, "", "mail is pushed to %s; other domains have other routes", e.route)
		}
	}
	return verdict("route", wire.OK, "", "mail is pushed to %s", e.route)
}

func (e *explaining) port25() wire.Check {
	name := "port25"
	switch {
	case e.probe == nil:
		return verdict(name, wire.Skipped, "", "the customer's server was not tried now")
	case e.probe.err != nil:
		return verdict(name, wire.Bad, reachAdvice(e.probe.err, e.route), "%s does not answer: %v", e.route, e.probe.err)
	case !strings.HasPrefix(e.probe.banner, "220"):
		e.out.Banner = e.probe.banner
		return verdict(name, wire.Bad, "the server's own words say why it takes no mail; the customer must repair that", "%s answers, and refuses: %s", e.probe.remote, e.probe.banner)
	}
	e.out.Banner = e.probe.banner
	return verdict(name, wire.OK, "", "%s answers: %s", e.probe.remote, e.probe.banner)
}

func (e *explaining) banner() wire.Check {
	switch {
	case e.out.Banner == "":
		return verdict("banner", wire.Skipped, "", "no banner is known")
	case isPIX(e.out.Banner):
		return verdict("banner", wire.Warn, "the customer should switch off SMTP inspection ('no fixup protocol smtp'); until then mail is pushed more slowly, in a way that it lets through",
			"a PIX firewall masks the server's banner: %s", e.out.Banner)
	}
	if e.probe == nil {
		return verdict("banner", wire.OK, "", "the last banner was not masked by a firewall: %s", e.out.Banner)
	}
	return verdict("banner", wire.OK, "", "the banner is not masked by a firewall")
}

func (e *explaining) openRelay() wire.Check {
	return verdict("open-relay", wire.Skipped, "", "not tested by this version")
}

// outcomes are what became of an attempt, in words.
var outcomes = map[spool.Outcome]string{
	spool.OutcomeDone:    "every message got an answer",
	spool.OutcomeFailed:  "failed",
	spool.OutcomeLost:    "the connection broke off",
	spool.OutcomeNothing: "nothing was sent",
	spool.OutcomeExpired: "its session was never heard of again",
}

// causes are what an attempt is made for, in words.
var causes = map[spool.Cause]string{
	spool.CauseLogin:    "the customer came online",
	spool.CauseOperator: "an operator asked",
	spool.CauseWakeup:   "a wake-up mail",
	spool.CauseETRN:     "ETRN",
	spool.CauseATRN:     "ATRN",
	spool.CauseNew:      "new mail",
	spool.CauseTimer:    "the timer",
	spool.CauseSweep:    "the sweep",
}

func (e *explaining) lastAttempt() wire.Check {
	q := &e.queue
	if q.LastAttempt == 0 {
		return verdict("last-attempt", wire.Skipped, "", "there was no attempt yet")
	}
	failed := q.Failures > 0 || q.LastOutcome == spool.OutcomeFailed || q.LastOutcome == spool.OutcomeLost || q.LastOutcome == spool.OutcomeExpired
	if c := q.Claim; c != nil && c.Until > mail.At(e.now) {
		text := fmt.Sprintf("one is under way, begun %s (%s)", e.since(c.Since), orUnknown(causes[c.Cause]))
		if failed { // the new one may be about to end it
			return verdict("last-attempt", wire.Warn, "ask again when the session has ended", "%s; the one before it: %s", text, e.ending())
		}
		return verdict("last-attempt", wire.OK, "", "%s", text)
	}
	text := fmt.Sprintf("the last attempt, %s (%s)", e.since(q.LastAttempt), orUnknown(causes[q.LastCause]))
	if q.LastRemote != "" && !strings.Contains(q.LastWords, q.LastRemote) {
		text += ", to " + q.LastRemote
	}
	text += ": " + e.ending()
	if q.LastSuccess != 0 && q.LastSuccess < q.LastAttempt {
		text += "; mail was last handed over " + e.since(q.LastSuccess)
	}
	switch {
	case failed:
		return verdict("last-attempt", wire.Bad, "the last words are the other side's or the network's; port25 says how it is now", "%s", text)
	case q.LastWords != "" && (q.LastWords[0] == '4' || q.LastWords[0] == '5'):
		return verdict("last-attempt", wire.Warn, "the customer's server answered and did not take all mail; its words say why", "%s", text)
	}
	return verdict("last-attempt", wire.OK, "", "%s", text)
}

// ending is what became of the last attempt that has ended.
func (e *explaining) ending() string {
	q := &e.queue
	text := orUnknown(outcomes[q.LastOutcome])
	if q.Failures > 1 {
		text += fmt.Sprintf(" (%d failed in a row)", q.Failures)
	}
	if q.LastWords != "" {
		text += ": " + q.LastWords
	}
	return text
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func (e *explaining) presence() wire.Check {
	p := &e.online
	missed, silent := p.Missed()
	switch {
	case e.unknown != nil:
		return verdict("presence", wire.Warn, "it does not keep mail from going out", "%v", e.unknown)
	case silent:
		return verdict("presence", wire.Warn, "mail is kept, and pushed when the customer comes online; see whether the access server sends Stops and Interim-Updates (login.session_life)",
			"the customer was online until a Stop was missed: the last word of the session came %s", e.since(missed.Heard))
	case p.LastEvent == 0:
		return verdict("presence", wire.Skipped, "no login event ever came for this login: check that RADIUS accounting or the hook names it", "it is not known whether the customer is online")
	case p.Online:
		return verdict("presence", wire.OK, "", "the customer is online since %s", e.since(p.Since))
	}
	return verdict("presence", wire.Warn, "mail is kept, and pushed when the customer comes online", "the customer is offline since %s", e.since(p.Since))
}

// doubleRecent is how long a double login is worth a warning.
const doubleRecent = 24 * time.Hour

func (e *explaining) doubleLogin() wire.Check {
	p := &e.online
	if p.Doubles == 0 {
		return verdict("double-login", wire.OK, "", "no double login was seen")
	}
	v := wire.OK
	advice := ""
	if mail.At(e.now).Sub(p.LastDouble) < doubleRecent {
		v, advice = wire.Warn, "the login is used twice, or with an address that is not the account's: mail goes to the fixed address only; the customer should change the password or close the other line"
	}
	return verdict("double-login", v, advice, "double login %s: %s (%s so far)", e.since(p.LastDouble), p.LastDoubleWhat, plural(p.Doubles, "time"))
}

func (e *explaining) debounce() wire.Check {
	q := &e.queue
	now := mail.At(e.now)
	until := q.LastLoginTrigger.Add(e.set.LoginWindow)
	switch {
	case q.LastLogin == 0:
		return verdict("debounce", wire.OK, "", "no login has asked for mail yet")
	case q.LastLoginTrigger == 0 || now >= until:
		return verdict("debounce", wire.OK, "", "the next login starts an attempt at once; the last login was %s", e.since(q.LastLogin))
	case q.Debounced == 0:
		return verdict("debounce", wire.OK, "", "the login %s started an attempt; another one does so in %s", e.since(q.LastLoginTrigger), ago(until.Sub(now)))
	}
	found := fmt.Sprintf("%s debounced since the one %s that started an attempt; the next one counts in %s",
		plural(int(q.Debounced), "login"), e.since(q.LastLoginTrigger), ago(until.Sub(now)))
	if q.Messages == 0 {
		return verdict("debounce", wire.OK, "", "%s", found)
	}
	return verdict("debounce", wire.Warn, fmt.Sprintf("the timer still applies; to try at once: queue retry --account %s", e.acct.Login),
		"%s", found)
}

func (e *explaining) quota() wire.Check {
	percent := 0.0
	if e.limit > 0 {
		percent = 100 * float64(e.use.Bytes) / float64(e.limit)
	}
	text := fmt.Sprintf("%s of %s used (%.0f %%) by %s", mail.Size(e.use.Bytes), mail.Size(e.limit), percent, plural(int(e.use.Messages), "message"))
	switch {
	case e.use.Bytes >= e.limit:
		return verdict("quota", wire.Bad, fmt.Sprintf("new mail is bounced; drain the queue or raise it: account set %s --quota SIZE", e.acct.Login), "the quota is full: %s", text)
	case percent >= 80:
		return verdict("quota", wire.Warn, fmt.Sprintf("mail will soon be bounced; raise it: account set %s --quota SIZE", e.acct.Login), "%s", text)
	}
	return verdict("quota", wire.OK, "", "%s", text)
}

func (e *explaining) held() wire.Check {
	h, what := e.queue.Hold, "the queue is held"
	undo := fmt.Sprintf("queue release --account %s", e.acct.Login)
	if h == nil && e.sus != nil {
		h, what, undo = &e.sus.Hold, "delivery is suspended for "+string(e.sus.Scope), "delivery resume "+string(e.sus.Scope)
	}
	if !inForce(h, mail.At(e.now)) {
		if e.out.Queue != nil && e.out.Queue.HeldMessages > 0 {
			return e.heldMessages(e.out.Queue.HeldMessages)
		}
		return verdict("hold", wire.OK, "", "neither held nor suspended")
	}
	text := fmt.Sprintf("%s by %s %s", what, h.By, e.since(h.At))
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	if h.Until != 0 {
		text += ", until " + h.Until.Std().Format(time.RFC3339)
	}
	return verdict("hold", wire.Bad, "to end it: "+undo, "%s", text)
}

// heldMessages tells of messages that are held one by one.
func (e *explaining) heldMessages(n int64) wire.Check {
	v, which := wire.Warn, fmt.Sprintf("%d of %s", n, plural(int(e.queue.Messages), "message"))
	if n >= e.queue.Messages {
		v, which = wire.Bad, "every message"
	}
	return verdict("hold", v, fmt.Sprintf("queue list --account %[1]s --state hold shows them; to end it: queue release --account %[1]s", e.acct.Login),
		"%s in the queue is held by itself", which)
}

func (e *explaining) waiting() wire.Check {
	if e.queue.Messages == 0 {
		return verdict("queue", wire.OK, "", "no mail is waiting")
	}
	v := wire.OK
	oldest := time.Duration(0)
	if !e.out.Queue.Oldest.IsZero() {
		oldest = e.now.Sub(e.out.Queue.Oldest)
	}
	if oldest > time.Hour {
		v = wire.Warn
	}
	return verdict("queue", v, "", "%s (%s) waiting, the oldest for %s", plural(int(e.queue.Messages), "message"), mail.Size(e.queue.Bytes), ago(oldest))
}

func (e *explaining) next() wire.Check {
	q := &e.queue
	now := mail.At(e.now)
	switch {
	case q.Messages == 0:
		return verdict("next-attempt", wire.OK, "", "none is needed: nothing is waiting")
	case q.Claim != nil && q.Claim.Until > now:
		return verdict("next-attempt", wire.OK, "", "a session of node %s works on the queue since %s", q.Claim.Node, e.since(q.Claim.Since))
	case q.Hold != nil || e.sus != nil:
		return verdict("next-attempt", wire.Warn, "see hold", "none while the queue is held or delivery suspended")
	case q.Next == 0:
		return verdict("next-attempt", wire.Bad, "this should not be; the watchdog repairs it within minutes, 'queue retry' at once", "mail is waiting and no attempt is planned")
	case q.Next <= now:
		return verdict("next-attempt", wire.OK, "", "due now (%s); it begins as soon as a session is free", orUnknown(causes[q.Cause]))
	}
	return verdict("next-attempt", wire.OK, "", "in %s, at %s (%s)", ago(q.Next.Sub(now)), q.Next.Std().Format(time.RFC3339), orUnknown(causes[q.Cause]))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
