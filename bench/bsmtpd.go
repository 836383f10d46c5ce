package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bsmtpd/api/client"
	"bsmtpd/api/wire"
	"bsmtpd/host"
	"bsmtpd/mail"
)

// bsmtpd is the finished program as a process of its own.
type bsmtpd struct {
	b      *bench
	dir    string // data, log and configuration are below
	smtp   string
	radius string
	api    *client.Client
	run    *running
	all    *group
	log    *os.File
}

var _ server = (*bsmtpd)(nil)

func newBsmtpd(b *bench) *bsmtpd { return &bsmtpd{b: b, all: &group{}} }

func (s *bsmtpd) name() string  { return "bsmtpd" }
func (s *bsmtpd) addr() string  { return s.smtp }
func (s *bsmtpd) group() *group { return s.all }
func (s *bsmtpd) data() string  { return filepath.Join(s.dir, "data") }

// huge is a quota that no scenario reaches.
const huge = 1 << 40

// start runs a new node with the one customer.
func (s *bsmtpd) start(ctx context.Context, want setup) error {
	if err := s.configure(want); err != nil {
		return err
	}
	if err := s.launch(ctx); err != nil {
		return err
	}
	next := want.next
	if next == "" {
		next = "127.0.0.1:1"
	}
	if _, err := s.api.AddAccount(ctx, wire.Account{Login: customer, Quota: huge, Route: next + "/none"}); err != nil {
		return err
	}
	if _, err := s.api.AddDomain(ctx, wire.Domain{Name: customerDomain, Login: customer}); err != nil {
		return err
	}
	if want.hold {
		return s.api.HoldQueue(ctx, "account/"+customer, wire.QueueHold{Reason: "bench"})
	}
	return nil
}

// configure makes the directory of a new node.
func (s *bsmtpd) configure(want setup) error {
	var err error
	if s.dir, err = s.b.fresh("bsmtpd"); err != nil {
		return err
	}
	for _, a := range []*string{&s.smtp, &s.radius} {
		if *a, err = freeAddr(); err != nil {
			return err
		}
	}
	s.api = client.Socket(host.System().Net, filepath.Join(s.data(), "admin.sock"))
	return s.settings(want)
}

// settings writes the configuration: JSON, which is YAML too. Beside the places
// it lifts limits that are meant for strangers, as Postfix's are lifted.
func (s *bsmtpd) settings(want setup) error {
	all := map[string]any{
		"node.data_dir": s.data(), "node.hostname": "mx.provider.example",
		"smtpd.listen": []string{s.smtp}, "smtpd.max_per_address": 1000, "smtpd.max_messages": 1_000_000,
		"login.radius.listen": s.radius, "login.files.dir": "", "api.address": "",
		"delivery.sessions_per_network": 0,
	}
	if want.connections > 0 {
		all["delivery.connections_per_account"] = want.connections
	}
	maps.Copy(all, want.settings)
	root := map[string]any{}
	for key, value := range all {
		section, words := root, strings.Split(key, ".")
		for _, w := range words[:len(words)-1] {
			below, ok := section[w].(map[string]any)
			if !ok {
				below = map[string]any{}
				section[w] = below
			}
			section = below
		}
		section[words[len(words)-1]] = value
	}
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.config(), b, 0o644)
}

func (s *bsmtpd) config() string { return filepath.Join(s.dir, "bsmtpd.yaml") }

// launch starts the program on the data that is there.
func (s *bsmtpd) launch(ctx context.Context) error {
	var err error
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return err
	}
	defer s.log.Close() // the child has its own
	s.all = newGroup("bsmtpd")
	cmd := s.all.command(s.b.binary, "serve", "--config", s.config())
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if s.run, err = begin(cmd); err != nil {
		return err
	}
	s.all.root = cmd.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := accepts(ctx, s.smtp, ""); err != nil {
		return fmt.Errorf("%w\n%s", err, s.said())
	}
	return nil
}

// said is the end of the log.
func (s *bsmtpd) said() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(b[max(0, len(b)-2000):])
}

func (s *bsmtpd) stop() {
	if s.api != nil {
		s.api.Close()
	}
	s.run.end(40 * time.Second)
	s.all.end()
	s.run = nil
}

// queue is the customer's; the zero value: it never had mail.
func (s *bsmtpd) queue(ctx context.Context) (wire.QueueSummary, error) {
	q, err := s.api.Queue(ctx, "account/"+customer)
	if mail.KindOf(err) == mail.NotFound {
		err = nil
	}
	return q, err
}

func (s *bsmtpd) queued(ctx context.Context) (int, error) {
	q, err := s.queue(ctx)
	return int(q.Messages), err
}

func (s *bsmtpd) settled(ctx context.Context) (bool, error) {
	q, err := s.queue(ctx)
	return q.Active == "", err
}

// flush is what "bsmtpd queue retry" does.
func (s *bsmtpd) flush(ctx context.Context) error {
	_, err := s.api.RetryQueue(ctx, "account/"+customer)
	return err
}
