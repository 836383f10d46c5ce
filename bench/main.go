package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// scenario measures some figures.
type scenario struct {
	name  string
	about string
	limit time.Duration // it is broken off after this
	run   func(ctx context.Context, b *bench) error
}

// scenarios in the order in which they run.
func scenarios() []scenario {
	return []scenario{
		{"accept4k", "accept 4 KiB, 64 sessions, connections reused, nothing delivered; CPU of that", 5 * time.Minute, accept4k},
		{"accept64k", "accept 64 KiB, 16 sessions", 5 * time.Minute, accept64k},
		{"accept1m", "accept 1 MiB, 16 sessions", 5 * time.Minute, accept1m},
		{"memory", "memory while 256 sessions bring 4 KiB messages", 5 * time.Minute, memory256},
		{"through", "accept 4 KiB over 64 sessions and deliver to smtp-sink", 6 * time.Minute, through},
		{"drain", "20,000 messages of 4 KiB queued for one customer, whose server comes up", 8 * time.Minute, drain},
		{"line", "a drain over a line of 1 Mbit/s with a round trip of 200 ms", 8 * time.Minute, drainOverLine},
		{"deep", "1,000,000 messages of 4 KiB queued for 100,000 accounts (Postfix: 100,000 for one destination)", 15 * time.Minute, deep},
		{"login", "login to first byte at the customer's server, 100,000 accounts with mail, idle node", 6 * time.Minute, login},
		{"storm", "100,000 logins within 60 s, each with mail, 1,000 customers' servers", 8 * time.Minute, storm},
		{"sweep", "a sweep over 100,000 waiting accounts, all servers down", 12 * time.Minute, sweep},
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	b := &bench{out: os.Stdout}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "scenarios to run, with commas between them (default: all)")
	list := flags.Bool("list", false, "list the scenarios and end")
	flags.BoolVar(&b.quick, "quick", false, "small counts and one round: shows that everything works, measures nothing")
	flags.BoolVar(&b.alone, "alone", false, "measure bsmtpd without Postfix")
	flags.BoolVar(&b.profiling, "profile", false, "write CPU profiles of bsmtpd beside the results")
	flags.BoolVar(&b.keep, "keep", false, "keep the working directory")
	flags.StringVar(&b.binary, "bsmtpd", "", "program to measure (default: built from the sources)")
	flags.StringVar(&b.results, "results", ".cache/bench", "directory for results")
	dir := flags.String("dir", "/var/tmp", "directory on the disk that is to be measured; all users must be able to enter it")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if *list {
		for _, s := range chosen {
			fmt.Fprintf(b.out, "%-10s %s\n", s.name, s.about)
		}
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.open(ctx, *dir); err != nil {
		return err
	}
	defer b.close()
	b.all(ctx, chosen)
	return errors.Join(ctx.Err(), b.report())
}

// choose gives the scenarios that are named; all, if none is.
func choose(only string) ([]scenario, error) {
	all := scenarios()
	if only == "" {
		return all, nil
	}
	names := strings.Split(only, ",")
	var out []scenario
	for _, s := range all {
		if i := slices.Index(names, s.name); i >= 0 {
			out = append(out, s)
			names = slices.Delete(names, i, i+1)
		}
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("no scenario %q; \"bench -list\" names them", names[0])
	}
	return out, nil
}
