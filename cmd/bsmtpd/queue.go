package main

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

func queueCommand(a *app) *cobra.Command {
	return group("queue", "look at waiting mail and decide about it",
		`A queue is account/LOGIN (waits to be pushed to the customer), mailbox/LOGIN (the
customer's own mail, collected and never pushed) or out/DOMAIN (goes to the world).`,
		queueSummary(a), queueList(a), queueSearch(a), queueShow(a),
		queueAct(a, holdVerb), queueAct(a, releaseVerb), queueAct(a, retryVerb),
		queueAct(a, requeueVerb), queueAct(a, bounceVerb), queueAct(a, removeVerb))
}

func queueList(a *app) *cobra.Command {
	var f filterFlags
	var ids bool
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "list messages, in the order of queues and arrival",
		Long: `List messages, below the name of their queue and what was last said about
them. With -o json every line is an object with the names of "postqueue -j", and
account, queue, attempts, failures and next_attempt beside them. TRIES is how often
a message was put off, or how often in a row its server was not reached.`,
		Example: `  bsmtpd queue list
  bsmtpd queue list --account jansen
  bsmtpd queue list -o json | jq -r .queue_id`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.listMessages(c.Context(), &f, ids, limit)
			if err == nil && n == 0 && !a.json() && !ids {
				a.note("nothing is queued")
			}
			return err
		},
	}
	f.add(c)
	c.Flags().BoolVarP(&ids, "quiet", "q", false, "print queue IDs only")
	c.Flags().IntVar(&limit, "limit", 0, "show only so many (0: all)")
	return c
}

func queueSearch(a *app) *cobra.Command {
	var f filterFlags
	var ids bool
	var limit int
	c := &cobra.Command{
		Use:   "search",
		Short: "find messages by account, sender, recipient, age, size and state",
		Long: `Find messages. All that is said must match. -q prints the queue IDs, one on a
line, for the commands that read them from "-"; the ID of a message that stands in
several queues is printed once for each. Exit code 3: nothing matched.`,
		Example: `  bsmtpd queue search --sender @spam.example --older 4h
  bsmtpd queue search --account jansen --larger 5MiB -q | bsmtpd queue hold -
  bsmtpd queue search --sender "*newsletter*" --state deferred -o json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if f == (filterFlags{}) {
				return usagef("say what to search for, for example --account LOGIN; \"bsmtpd queue list\" shows everything")
			}
			n, err := a.listMessages(c.Context(), &f, ids, limit)
			if err == nil && n == 0 {
				return a.nothing("no message matches")
			}
			return err
		},
	}
	f.add(c)
	c.Flags().BoolVarP(&ids, "quiet", "q", false, "print queue IDs only")
	c.Flags().IntVar(&limit, "limit", 0, "show only so many (0: all)")
	return c
}

// listMessages writes what a filter matches, at most limit rows, and counts it.
func (a *app) listMessages(ctx context.Context, f *filterFlags, idsOnly bool, limit int) (int, error) {
	filter, err := f.filter()
	if err != nil {
		return 0, err
	}
	cl, err := a.client()
	if err != nil {
		return 0, err
	}
	page := client.Page{Limit: max(0, limit)}
	if a.json() && !idsOnly {
		return a.passOn(cl.MessageLines(ctx, filter, page))
	}
	n, now := 0, time.Now()
	// What messages of a queue have in common stands above them, not in each row.
	t := newTable(a.out, "ID", "STATE", ">SIZE", ">AGE", "SENDER", "RECIPIENT", ">TRIES", "NEXT")
	var queue, why string
	for r, err := range cl.Messages(ctx, filter, page) {
		if err != nil {
			return n, err
		}
		n++
		if idsOnly {
			if _, err := fmt.Fprintln(a.out, r.QueueID); err != nil {
				return n, err
			}
			continue
		}
		if said := reason(r.Recipients); n == 1 || r.Queue != queue || said != why {
			queue, why = r.Queue, said
			t.title(strings.TrimSuffix(queue+": "+why, ": "))
		}
		t.row(r.QueueID, r.QueueName, size(r.MessageSize), age(now, unixTime(r.ArrivalTime)), r.Sender, recipients(r.Recipients),
			strconv.Itoa(max(r.Attempts, r.Failures)), in(now, unixTime(r.NextAttempt)))
		if t.err != nil {
			return n, t.err // whoever read it has gone
		}
	}
	return n, t.end()
}

// passOn writes JSON lines as they come, and counts them.
func (a *app) passOn(lines iter.Seq2[[]byte, error]) (n int, err error) {
	for line, err := range lines {
		if err != nil {
			return n, err
		}
		n++
		if _, err := a.out.Write(append(line, '\n')); err != nil {
			return n, err
		}
	}
	return n, nil
}

// recipients is the first one, and how many more there are.
func recipients(to []wire.Recipient) string {
	switch len(to) {
	case 0:
		return ""
	case 1:
		return to[0].Address
	}
	return fmt.Sprintf("%s +%d", to[0].Address, len(to)-1)
}

// reason is the first delay reason.
func reason(to []wire.Recipient) string {
	for _, r := range to {
		if r.DelayReason != "" {
			return r.DelayReason
		}
	}
	return ""
}

func queueShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show {ID | QUEUE}...",
		Short: "show all that is known of messages or queues",
		Example: `  bsmtpd queue show 000000000S002
  bsmtpd queue show account/jansen`,
		Args: atLeast("ID or QUEUE"),
		RunE: func(c *cobra.Command, ids []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			for i, id := range ids {
				if i > 0 && !a.json() {
					fmt.Fprintln(a.out)
				}
				if err := a.showOne(c.Context(), cl, id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// showOne shows a queue where the name has a slash, else a message.
func (a *app) showOne(ctx context.Context, cl *client.Client, name string) error {
	if strings.Contains(name, "/") {
		q, err := cl.Queue(ctx, name)
		switch {
		case err != nil:
			return err
		case a.json():
			return a.line(q)
		}
		return a.showQueue(&q)
	}
	if _, err := mail.ParseID(name); err != nil {
		return usagef("%v", err)
	}
	m, err := cl.Message(ctx, name)
	switch {
	case err != nil:
		return err
	case a.json():
		return a.line(m)
	}
	return a.showMessage(m)
}

func (a *app) showMessage(m wire.Message) error {
	now := time.Now()
	for i := range m.Rows {
		r := &m.Rows[i]
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		p := a.sheet()
		p.line("ID", r.QueueID)
		p.line("queue", r.Queue)
		p.line("state", r.QueueName)
		p.line("sender", r.Sender)
		for _, to := range r.Recipients {
			p.line("recipient", to.Address)
			p.line("  last said", to.DelayReason)
		}
		p.line("size", size(r.MessageSize))
		p.line("arrived", since(now, r.Arrived))
		p.line("attempts", fmt.Sprint(max(r.Attempts, r.Failures)))
		p.line("next attempt", in(now, unixTime(r.NextAttempt)))
		p.line("not before", until(now, r.RetryAt))
		p.line("expires", until(now, r.Expires))
		p.line("held", holdText(now, r.Hold))
		p.line("removed", holdText(now, r.Removed))
		p.line("ENVID", r.EnvID)
		p.line("RET", r.Return)
		if err := p.end(); err != nil {
			return err
		}
	}
	for _, q := range m.Queues {
		fmt.Fprintln(a.out)
		if err := a.showQueue(q); err != nil {
			return err
		}
	}
	return nil
}

// showQueue is what is known of a queue as a whole.
func (a *app) showQueue(q *wire.QueueSummary) error {
	now := time.Now()
	p := a.sheet()
	p.line("queue", q.Queue)
	p.line("waiting", fmt.Sprintf("%s, %s", plural(q.Messages, "message"), size(q.Bytes)))
	if q.QuotaBytes > 0 {
		p.line("quota", fmt.Sprintf("%.0f%% of %s used", q.QuotaPercent, size(q.QuotaBytes)))
	}
	p.line("next attempt", strings.TrimSpace(in(now, q.NextAttempt)+" "+bracket(q.NextCause)))
	p.line("at work now", q.Active)
	p.line("last attempt", strings.TrimSpace(since(now, q.LastAttempt)+" "+bracket(q.LastCause)))
	p.line("  outcome", q.LastOutcome)
	p.line("  server", q.LastRemote)
	p.line("  said", q.LastWords)
	p.line("failures", nonzero(int64(q.Failures)))
	p.line("last success", since(now, q.LastSuccess))
	p.line("last login", since(now, q.LastLogin))
	p.line("debounced", nonzero(q.Debounced))
	p.line("held", holdText(now, q.Hold))
	p.line("held alone", nonzero(q.HeldMessages))
	p.line("suspended by", q.Suspended)
	return p.end()
}

func queueSummary(a *app) *cobra.Command {
	var sortBy string
	var limit int
	c := &cobra.Command{
		Use:   "summary",
		Short: "show how many messages of which age every queue holds",
		Long: `Show every queue that is not empty: messages by age in minutes (up to 5, 10, 20 …
and older, as qshape has them), bytes, the oldest message, and how much of the
account's quota is used. The fullest stand first.`,
		Example: `  bsmtpd queue summary
  bsmtpd queue summary --sort oldest --limit 20
  bsmtpd queue summary -o json | jq 'select(.quota_percent > 90) | .account'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			less, ok := summaryOrders[sortBy]
			if !ok {
				return usagef("--sort %s: use messages, bytes, oldest, quota or name", sortBy)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var all []*wire.QueueSummary
			for q, err := range cl.Queues(c.Context(), true, false, client.Page{}) {
				if err != nil {
					return err
				}
				all = append(all, &q)
			}
			slices.SortStableFunc(all, less)
			return a.showSummary(all, limit)
		},
	}
	c.Flags().StringVar(&sortBy, "sort", "messages", "order: messages, bytes, oldest, quota or name")
	c.Flags().IntVar(&limit, "limit", 0, "show only so many queues (0: all)")
	return c
}

// summaryOrders are the orders of queue summary, the worst first.
var summaryOrders = map[string]func(a, b *wire.QueueSummary) int{
	"messages": func(a, b *wire.QueueSummary) int { return int(b.Messages - a.Messages) },
	"bytes":    func(a, b *wire.QueueSummary) int { return int(b.Bytes - a.Bytes) },
	"oldest":   func(a, b *wire.QueueSummary) int { return a.Oldest.Compare(b.Oldest) },
	"quota":    func(a, b *wire.QueueSummary) int { return int(1000 * (b.QuotaPercent - a.QuotaPercent)) },
	"name":     func(a, b *wire.QueueSummary) int { return strings.Compare(a.Queue, b.Queue) },
}

func (a *app) showSummary(all []*wire.QueueSummary, limit int) error {
	shown := all
	if limit > 0 && len(all) > limit {
		shown = all[:limit]
	}
	if a.json() {
		for _, q := range shown {
			if err := a.line(q); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) == 0 {
		a.note("nothing is queued")
		return nil
	}
	columns := []string{"QUEUE", ">MESSAGES"}
	for _, m := range wire.Ages {
		columns = append(columns, fmt.Sprintf(">%d", m))
	}
	columns = append(columns, fmt.Sprintf(">%d+", wire.Ages[len(wire.Ages)-1]), ">BYTES", ">OLDEST", ">QUOTA", "STATE")
	t := newTable(a.out, columns...)
	now := time.Now()
	total := wire.QueueSummary{Queue: "TOTAL", Ages: make([]int64, len(wire.Ages)+1)}
	for _, q := range all {
		total.Messages += q.Messages
		total.Bytes += q.Bytes
		if total.Oldest.IsZero() || !q.Oldest.IsZero() && q.Oldest.Before(total.Oldest) {
			total.Oldest = q.Oldest
		}
		for i := range min(len(q.Ages), len(total.Ages)) {
			total.Ages[i] += q.Ages[i]
		}
	}
	t.row(summaryCells(now, &total, "")...)
	for i := range shown {
		t.row(summaryCells(now, shown[i], queueState(now, shown[i]))...)
	}
	if err := t.end(); err != nil {
		return err
	}
	if n := len(all) - len(shown); n > 0 {
		fmt.Fprintf(a.out, "and %s\n", plural(int64(n), "more queue"))
	}
	return nil
}

func summaryCells(now time.Time, q *wire.QueueSummary, state string) []string {
	cells := append(make([]string, 0, len(wire.Ages)+7), q.Queue, strconv.FormatInt(q.Messages, 10))
	for i := range len(wire.Ages) + 1 {
		n := ""
		if i < len(q.Ages) {
			n = strconv.FormatInt(q.Ages[i], 10)
		}
		cells = append(cells, n)
	}
	quota := ""
	if q.QuotaBytes > 0 {
		quota = strconv.FormatFloat(q.QuotaPercent, 'f', 0, 64) + "%"
	}
	return append(cells, size(q.Bytes), age(now, q.Oldest), quota, state)
}

func failing(q *wire.QueueSummary) string {
	return strings.TrimSpace("failing " + bracket(nonzero(int64(q.Failures))))
}

// queueState says in a few words what a queue waits for.
func queueState(now time.Time, q *wire.QueueSummary) string {
	switch {
	case q.Hold != nil:
		return "held"
	case q.Suspended != "":
		return "suspended"
	case q.HeldMessages > 0 && q.HeldMessages == q.Messages:
		return "all held"
	case q.Active != "":
		return "at work"
	case q.Failing && !q.NextAttempt.IsZero():
		return failing(q) + ", next " + in(now, q.NextAttempt)
	case q.Failing:
		return failing(q)
	case !q.NextAttempt.IsZero():
		return "next " + in(now, q.NextAttempt)
	}
	return ""
}
