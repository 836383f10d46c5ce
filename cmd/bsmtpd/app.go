package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bsmtpd/host"
	"bsmtpd/mail"
)

// The exit codes, which scripts depend on.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitNothing = 3 // nothing matched, or there is no such thing

	exitRefused = 2 // "spool verify": a server will refuse to start
)

// The environment that the commands read.
const (
	envData    = "BSMTPD_DATA"
	envDataDir = "BSMTPD_NODE_DATA_DIR" // the server's own setting
	envServer  = "BSMTPD_SERVER"
	envToken   = "BSMTPD_TOKEN"
)

// socketName is where a server listens in its data directory.
const socketName = "admin.sock"

// app is what the commands share: the streams, and the way to the server.
type app struct {
	in      io.Reader
	out     *bufio.Writer
	screen  io.Writer // what out writes to
	err     io.Writer
	environ []string // "NAME=value"

	data       string // --data
	server     string // --server
	tokenFile  string // --token-file
	caFile     string // --ca
	plainToken bool   // --plain-token
	output     string // -o

	host host.Host // files and the network

	started bool // a command's own code runs: errors are no longer of usage
}

func newApp(in io.Reader, out, err io.Writer, environ []string) *app {
	return &app{in: in, out: bufio.NewWriterSize(out, 64<<10), screen: out, err: err, environ: environ, host: host.System()}
}

// getenv is a variable of the environment; empty: it is not set.
func (a *app) getenv(name string) string {
	for _, v := range slices.Backward(a.environ) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// usageError is a mistake in how a command was called.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errNothing ends a command whose search matched nothing, after it has said so.
var errNothing = errors.New("nothing matched")

// exitCode says with which code a command ends.
func (a *app) exitCode(err error) int {
	var usage *usageError
	var refused *refusedError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), !a.started:
		return exitUsage
	case errors.As(err, &refused):
		return exitRefused
	case errors.Is(err, errNothing), mail.KindOf(err) == mail.NotFound:
		return exitNothing
	}
	return exitFailed
}

// nothing tells a person that nothing matched; programs see the exit code.
func (a *app) nothing(format string, args ...any) error {
	a.note(format, args...)
	return errNothing
}

// note tells something that is not the result.
func (a *app) note(format string, args ...any) {
	a.out.Flush()
	fmt.Fprintf(a.err, format+"\n", args...)
}

func (a *app) json() bool { return a.output == "json" }

// line writes one JSON line.
func (a *app) line(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// say writes the result of a change for people; with -o json it writes v.
func (a *app) say(v any, format string, args ...any) error {
	if a.json() {
		return a.line(v)
	}
	_, err := fmt.Fprintf(a.out, format+"\n", args...)
	return err
}

// isTerminal reports whether a stream is a person's screen.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// open gives the bytes of a file, or standard input for "-".
func (a *app) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.in), nil
	}
	return a.host.FS.Open(name)
}

// safely is standard output; on a person's screen a stranger's bytes cannot do
// more there than be read.
func (a *app) safely() io.Writer {
	if isTerminal(a.screen) {
		return defused{a.out}
	}
	return a.out
}

// defused passes on lines and tabs, and every other control character as "?".
type defused struct{ w io.Writer }

func (d defused) Write(b []byte) (int, error) {
	safe := bytes.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0:
			return '?'
		}
		return r
	}, b)
	if _, err := d.w.Write(safe); err != nil {
		return 0, err
	}
	return len(b), nil
}
