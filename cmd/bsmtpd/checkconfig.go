package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bsmtpd/config"
)

func checkConfigCommand(a *app) *cobra.Command {
	var file string
	var sets []string
	var dump bool
	c := &cobra.Command{
		Use:   "check-config",
		Short: "see whether the settings can be used, without starting a server",
		Long: `Read the settings as "bsmtpd serve" would, from the file and the environment, and
say everything that is wrong with them. Exit code 1: they cannot be used.`,
		Example: `  bsmtpd check-config --config /etc/bsmtpd/bsmtpd.yaml
  bsmtpd check-config --config /etc/bsmtpd/bsmtpd.yaml --dump`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			if file == "" {
				file = a.getenv("BSMTPD_CONFIG")
			}
			source, err := a.source(file, sets)
			if err != nil {
				return err
			}
			cfg, err := config.Load(source)
			var problems config.Problems
			switch {
			case errors.As(err, &problems):
				return fmt.Errorf("%w\n%s", err, plural(int64(len(problems)), "problem"))
			case err != nil:
				return err
			case dump:
				fmt.Fprint(a.out, config.Dump(cfg))
				return nil
			case file == "":
				return a.say(map[string]bool{"ok": true}, "the defaults and the environment can be used")
			}
			return a.say(map[string]bool{"ok": true}, "%s can be used", file)
		},
	}
	c.Flags().StringVar(&file, "config", "", "YAML file (default $BSMTPD_CONFIG; without one: defaults and environment)")
	c.Flags().StringArrayVar(&sets, "set", nil, "one setting, key=value; wins over file and environment")
	c.Flags().BoolVar(&dump, "dump", false, "print every setting in force, secrets hidden")
	return c
}
