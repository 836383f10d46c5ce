package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

// verb is one thing that can be done to messages.
type verb struct {
	name  string // as the API and the command have it
	done  string // "3 messages held"
	short string
	long  string
}

var (
	holdVerb    = verb{"hold", "held", "keep messages without trying them", "Held messages stay until they are released."}
	releaseVerb = verb{"release", "released", "end a hold and try the messages", ""}
	retryVerb   = verb{"retry", "set to be tried now", "try messages now", "An attempt starts at once, whatever the schedule says."}
	requeueVerb = verb{"requeue", "brought back", "bring back messages that were removed", "Removed messages can be brought back for 72 hours; \"bsmtpd queue list --state trash\" shows them."}
	bounceVerb  = verb{"bounce", "bounced", "give messages up and tell their senders", "This cannot be undone."}
	removeVerb  = verb{"remove", "removed", "take messages out of the queue and tell nobody", "For 72 hours \"bsmtpd queue requeue\" can bring them back."}
)

// queues says what can be done to whole queues.
func (v verb) queues() string {
	switch v {
	case holdVerb:
		return "\nA queue's name (account/jansen) holds the whole queue, mail still to come included."
	case releaseVerb:
		return "\nA queue's name (account/jansen) ends the hold of a whole queue."
	case retryVerb:
		return "\nA queue's name (account/jansen, out/example.com) tries the whole queue."
	}
	return ""
}

func queueAct(a *app, v verb) *cobra.Command {
	var f filterFlags
	var dryRun bool
	var why string
	c := &cobra.Command{
		Use:   v.name + " {ID... | - | QUEUE... | --account LOGIN | --domain DOMAIN | ... | " + allWord + "}",
		Short: v.short,
		Long: strings.TrimSpace(v.long + `

Name the messages by their queue IDs; or "-", to read IDs from standard input,
one on a line; or the flags of "bsmtpd queue search", all of which must match; or
the word ` + allWord + ` for every message there is, or with --state for every one in
that state. --dry-run counts and does nothing.` + v.queues() + `
Exit code 3: nothing matched.`),
		Example: fmt.Sprintf(`  bsmtpd queue %[1]s 000000000S002
  bsmtpd queue %[1]s --account jansen --dry-run
  bsmtpd queue search --sender @spam.example -q | bsmtpd queue %[1]s -
  bsmtpd queue %[1]s %[2]s`, v.name, allWord),
		RunE: func(c *cobra.Command, args []string) error {
			act := wire.Action{Action: v.name, DryRun: dryRun, Reason: why}
			filter, err := f.filter()
			if err != nil {
				return err
			}
			byFilter := f != (filterFlags{})
			byState := byFilter && f == (filterFlags{state: f.state})
			switch {
			case byState && len(args) == 1 && args[0] == allWord:
				act.All, act.Filter = true, &filter
			case byState && len(args) == 0:
				return usagef("--state alone means every message in that state; say %s as well if that is meant", allWord)
			case byFilter && len(args) > 0:
				return usagef("name messages by ID or choose them with flags, not both")
			case byFilter:
				if v == requeueVerb && filter.State == "" {
					filter.State = wire.StateTrash
				}
				act.Filter = &filter
			case len(args) == 0:
				return usagef("say which messages: IDs, -, --account LOGIN, --domain DOMAIN, other flags, or %s for every message there is", allWord)
			case len(args) == 1 && args[0] == allWord:
				act.All = true
				if v == requeueVerb {
					act.Filter = &wire.Filter{State: wire.StateTrash}
				}
			case strings.Contains(args[0], "/"):
				return a.actOnQueues(c, v, &act, args)
			default:
				return a.actOnArgs(c, v, act, args)
			}
			var total wire.Progress
			expected, err := a.expected(c, act)
			if err != nil {
				return err
			}
			if err := a.act(c, v, act, &total, expected); err != nil {
				return err
			}
			return a.acted(v, &total, dryRun)
		},
	}
	f.add(c)
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "count the messages and do nothing")
	c.Flags().StringVar(&why, "reason", "", "for the audit and for whoever looks at a held message")
	return c
}

// actOnArgs acts on the IDs that were named, or that are read for "-".
func (a *app) actOnArgs(c *cobra.Command, v verb, act wire.Action, args []string) error {
	if len(args) == 1 && args[0] == "-" {
		return a.actOnIDs(c, v, act, a.in)
	}
	return a.actOnIDs(c, v, act, strings.NewReader(strings.Join(args, "\n")))
}

// actOnQueues does one thing to whole queues.
func (a *app) actOnQueues(c *cobra.Command, v verb, act *wire.Action, queues []string) error {
	if v.queues() == "" {
		return usagef("%s works on messages; use \"--queue %s\" for those in a queue", v.name, queues[0])
	}
	if act.DryRun {
		return usagef("--dry-run counts messages; a whole queue is one thing")
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	for _, q := range queues {
		switch v {
		case holdVerb:
			err = cl.HoldQueue(c.Context(), q, wire.QueueHold{Reason: act.Reason})
		case releaseVerb:
			err = cl.ReleaseQueue(c.Context(), q)
		default:
			var t wire.Triggered
			if t, err = cl.RetryQueue(c.Context(), q); err == nil {
				err = a.say(t, "queue %s: %s, %s", q, plural(t.Messages, "message"), t.State)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := a.say(map[string]string{v.done: q}, "queue %s %s", q, v.done); err != nil {
			return err
		}
	}
	return nil
}

// actOnIDs reads IDs, the first word of each line, and acts on them in batches,
// so that any number of them needs little memory.
func (a *app) actOnIDs(c *cobra.Command, v verb, act wire.Action, in io.Reader) error {
	var total wire.Progress
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) == 0 {
			continue
		}
		id, err := mail.ParseID(f[0])
		if err != nil {
			if total.Seen > 0 {
				return fmt.Errorf("line %d: %w; the %d messages before it are %s", n, err, total.Done, v.done)
			}
			return usagef("%v%s", err, notAnID(f[0]))
		}
		act.IDs = append(act.IDs, id.String())
		if len(act.IDs) == wire.MaxIDs {
			if err := a.act(c, v, act, &total, 0); err != nil {
				return err
			}
			act.IDs = nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read queue IDs: %w", err)
	}
	if len(act.IDs) > 0 {
		if err := a.act(c, v, act, &total, 0); err != nil {
			return err
		}
	}
	return a.acted(v, &total, act.DryRun)
}

// notAnID guesses what somebody meant by a word that is no queue ID.
func notAnID(word string) string {
	if strings.EqualFold(word, allWord) {
		return "; every message is " + allWord
	}
	if login, err := parseLogin(word); err == nil {
		return fmt.Sprintf("; for a customer's mail: --account %s", login)
	}
	return ""
}

// expected counts what a filter matches where a person watches, so that the bar
// has an end; else it is 0 and costs nothing.
func (a *app) expected(c *cobra.Command, act wire.Action) (int64, error) {
	if act.DryRun || !isTerminal(a.err) {
		return 0, nil
	}
	cl, err := a.client()
	if err != nil {
		return 0, err
	}
	act.DryRun = true
	p, err := cl.Act(c.Context(), act, nil)
	return p.Seen, err
}

// act sends one action and adds what became of it to total. expected is how many
// messages it will be about, 0 where that is not known.
func (a *app) act(c *cobra.Command, v verb, act wire.Action, total *wire.Progress, expected int64) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	meter := a.meter(v.done)
	defer meter.end()
	before := *total
	_, err = cl.Act(c.Context(), act, func(p wire.Progress) {
		for _, text := range p.Errors {
			meter.end()
			a.note("bsmtpd: %s", harmless(text))
		}
		total.Seen, total.Done = before.Seen+p.Seen, before.Done+p.Done
		total.Missing, total.Failed = before.Missing+p.Missing, before.Failed+p.Failed
		meter.show(total.Done, expected)
	})
	return err
}

// acted tells the sum and makes the exit code.
func (a *app) acted(v verb, total *wire.Progress, dryRun bool) error {
	total.DryRun, total.Final = dryRun, true
	text := fmt.Sprintf("%s %s", plural(total.Done, "message"), v.done)
	if dryRun {
		text = fmt.Sprintf("%s would be %s", plural(total.Done, "message"), v.done)
	}
	if total.Missing > 0 {
		text += fmt.Sprintf("; %d not there any more", total.Missing)
	}
	if err := a.say(total, "%s", text); err != nil {
		return err
	}
	switch {
	case total.Failed > 0:
		return fmt.Errorf("%s could not be %s", plural(total.Failed, "message"), v.done)
	case total.Done == 0:
		return errNothing
	}
	return nil
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
