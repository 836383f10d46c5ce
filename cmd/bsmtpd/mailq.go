package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

// mailq prints the queue as Postfix does (C18).
func (a *app) mailq(ctx context.Context, args []string) error {
	a.started = true
	for _, arg := range args {
		switch arg {
		case "-v", "-Ac", "-Am": // of no meaning here, and common in scripts
		case "-j":
			a.output = "json"
		default:
			return usagef("mailq: option %s is not supported; \"bsmtpd queue list --help\" can do more", arg)
		}
	}
	return a.printQueue(ctx)
}

// printQueue is mailq and sendmail -bp.
func (a *app) printQueue(ctx context.Context) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	var messages, bytes int64
	for r, err := range cl.Messages(ctx, wire.Filter{}, client.Page{}) {
		if err != nil {
			return err
		}
		if r.QueueName == wire.StateMailbox {
			continue // delivered, in Postfix's words
		}
		if a.json() {
			if err := a.line(r); err != nil {
				return err
			}
			continue
		}
		if messages == 0 {
			fmt.Fprintf(a.out, "%-17s %8s %-19s %s\n", "----Queue ID-----", "--Size--", "---Arrival Time----", "--Sender/Recipient------")
		}
		messages++
		bytes += r.MessageSize
		a.mailqEntry(&r)
	}
	if a.json() {
		return nil
	}
	if messages == 0 {
		fmt.Fprintln(a.out, "Mail queue is empty")
		return nil
	}
	s := "s"
	if messages == 1 {
		s = ""
	}
	_, err = fmt.Fprintf(a.out, "-- %d Kbytes in %d Request%s.\n", (bytes+1023)/1024, messages, s)
	return err
}

// mailqEntry writes one message in the long form of Postfix's showq: the ID with *
// for active or ! for held, then the reason in brackets above the recipients that
// it is about.
func (a *app) mailqEntry(r *wire.QueueRow) {
	id := r.QueueID
	switch r.QueueName {
	case wire.StateActive:
		id += "*"
	case wire.StateHold:
		id += "!"
	}
	fmt.Fprintf(a.out, "%-17s %8d %-19s %s\n", id, r.MessageSize, unixTime(r.ArrivalTime).Format("Mon Jan _2 15:04:05"), harmless(r.Sender))
	last := ""
	for _, to := range r.Recipients {
		if to.DelayReason != last && to.DelayReason != "" {
			fmt.Fprintf(a.out, "%80s\n", "("+harmless(to.DelayReason)+")")
		}
		last = to.DelayReason
		fmt.Fprintf(a.out, "%46s %s\n", "", harmless(to.Address))
	}
	fmt.Fprintln(a.out)
}

// sendmail does what an operator says to sendmail about the queue. It takes no
// mail: that comes by SMTP.
func (a *app) sendmail(ctx context.Context, args []string) error {
	a.started = true
	var list, all bool
	var sites, ids []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		value := func(option string) (string, error) {
			if v := strings.TrimPrefix(arg, option); v != "" {
				return v, nil
			}
			if i++; i < len(args) {
				return args[i], nil
			}
			return "", usagef("sendmail: %s needs a value", option)
		}
		switch {
		case arg == "-bp":
			list = true
		case arg == "-q":
			all = true
		case strings.HasPrefix(arg, "-qR"):
			v, err := value("-qR")
			if err != nil {
				return err
			}
			sites = append(sites, v)
		case strings.HasPrefix(arg, "-qI"):
			v, err := value("-qI")
			if err != nil {
				return err
			}
			ids = append(ids, v)
		case arg == "-v" || arg == "-i" || strings.HasPrefix(arg, "-o"): // common in scripts, of no meaning here
		case strings.HasPrefix(arg, "-q"):
			return usagef("sendmail: %s is not supported: the server has its own schedule; use -q, -qR DOMAIN or -qI ID", arg)
		case strings.HasPrefix(arg, "-b"):
			return usagef("sendmail: %s is not supported; only -bp is", arg)
		default:
			return usagef("sendmail: %s is not supported: mail is taken by SMTP only; -bp, -q, -qR DOMAIN and -qI ID work on the queue", arg)
		}
	}
	switch {
	case list:
		return a.printQueue(ctx)
	case all && len(sites)+len(ids) == 0:
		return a.runQueues(ctx, wire.QueueRetry{All: true})
	case len(sites) > 0:
		return a.runSites(ctx, sites)
	case len(ids) > 0:
		return a.runIDs(ctx, ids)
	}
	return usagef("sendmail: mail is taken by SMTP only; -bp, -q, -qR DOMAIN and -qI ID work on the queue")
}

// runSites tries the queues that mail to domains waits in: the account's where
// the domain is a customer's, else the one to the world.
func (a *app) runSites(ctx context.Context, sites []string) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	var queues []string
	for _, site := range sites {
		name, err := parseDomain(strings.TrimPrefix(site, "@"))
		if err != nil {
			return err
		}
		d, err := cl.Domain(ctx, name)
		queue := "account/" + string(d.Login)
		switch {
		case mail.KindOf(err) == mail.NotFound:
			queue = "out/" + string(name)
		case err != nil:
			return err
		}
		if !slices.Contains(queues, queue) {
			queues = append(queues, queue)
		}
	}
	return a.runQueues(ctx, wire.QueueRetry{Queues: queues})
}

func (a *app) runQueues(ctx context.Context, r wire.QueueRetry) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	done, err := cl.RetryQueues(ctx, r, func(p wire.Progress) {
		for _, text := range p.Errors {
			a.note("sendmail: %s", harmless(text))
		}
	})
	if err == nil && done.Failed > 0 {
		err = fmt.Errorf("sendmail: %s could not be tried", plural(done.Failed, "queue"))
	}
	return err
}

func (a *app) runIDs(ctx context.Context, ids []string) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	for i, s := range ids {
		id, err := mail.ParseID(s)
		if err != nil {
			return usagef("sendmail: %v", err)
		}
		ids[i] = id.String()
	}
	last, err := cl.Act(ctx, wire.Action{Action: retryVerb.name, IDs: ids, Reason: "sendmail -qI"}, nil)
	if err != nil {
		return err
	}
	if last.Done == 0 {
		return a.nothing("sendmail: no such message is queued")
	}
	return nil
}
