package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"bsmtpd/config"
	"bsmtpd/node"
)

func serveCommand(a *app) *cobra.Command {
	var file string
	var sets []string
	var init bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "run the server",
		Long: `Run the server until it gets SIGTERM or SIGINT. SIGHUP reads the configuration
again; so does a change of its file.

Without a configuration it is one node on this machine only: SMTP on port 2525,
RADIUS accounting on 18130/udp (secret testing123), the HTTP API on 8025, data in
./data.

A data directory that does not exist is made. One that exists and is empty is
refused, for it is more often a disk that is not mounted than a new node; --init
says that it is meant.`,
		Example: `  bsmtpd serve
  bsmtpd serve --data /var/lib/bsmtpd --config /etc/bsmtpd/bsmtpd.yaml
  bsmtpd serve --set smtpd.listen=127.0.0.1:25 --set node.log.level=debug`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			source, err := a.source(file, sets)
			if err != nil {
				return err
			}
			return a.serve(c.Context(), source, init)
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", a.getenv("BSMTPD_CONFIG"), "configuration file (default $BSMTPD_CONFIG, else none)")
	f.StringArrayVar(&sets, "set", nil, "one setting, key=value; wins over file and environment")
	f.BoolVar(&init, "init", false, "an empty data directory is meant: this is a new node")
	return c
}

// source says where the settings come from: file, environment and flags.
func (a *app) source(file string, sets []string) (config.Options, error) {
	o := config.Options{FS: a.host.FS, File: file, Environ: a.environ, Flags: map[string]string{}}
	for _, s := range sets {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return o, usagef("--set %s: write key=value, for example --set node.log.level=debug", s)
		}
		o.Flags[key] = value
	}
	if dir := cmp.Or(a.data, a.getenv(envData)); dir != "" {
		o.Flags["node.data_dir"] = dir
	}
	return o, nil
}

func (a *app) serve(ctx context.Context, source config.Options, init bool) error {
	conf, err := config.Load(source)
	if err != nil {
		return err
	}
	lines := node.NewLineWriter(a.err)
	defer lines.Close()
	log, level := node.NewLog(lines, conf.Node.Log)
	n, err := node.New(node.Options{Config: conf, Source: source, Host: a.host, Log: log, Level: level, Version: version(), Init: init})
	if err != nil {
		return err
	}
	listens := n.Listens()
	for _, key := range slices.Sorted(maps.Keys(listens)) {
		fmt.Fprintf(a.err, "%-20s %s\n", key, strings.Join(listens[key], ", "))
	}
	fmt.Fprintf(a.err, "%-20s %s\n", "data", conf.Node.DataDir)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-hup:
				n.Reload()
			case <-ended:
				return
			}
		}
	}()
	if err := n.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// version is what the build knows of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value[:min(12, len(s.Value))]
		}
	}
	return v
}
