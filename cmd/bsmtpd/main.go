// Command bsmtpd is the mail queue server and everything that an operator says
// to it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr, os.Environ())
	stop()
	os.Exit(code)
}

// run is the whole program but for the process around it. Called by the names of
// old, it behaves as those (C18).
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer, environ []string) int {
	a := newApp(in, out, errs, environ)
	switch filepath.Base(args[0]) {
	case "mailq":
		return a.end(a.mailq(ctx, args[1:]))
	case "sendmail":
		return a.end(a.sendmail(ctx, args[1:]))
	}
	root := newRoot(a)
	root.SetArgs(args[1:])
	return a.end(root.ExecuteContext(ctx))
}
