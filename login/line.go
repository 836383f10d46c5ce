package login

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"bsmtpd/directory"
)

// Limits of a login file.
const (
	maxFileBytes = 64 << 10
	maxFileLines = 4096
	maxLineBytes = 1024
)

// lineError says what is wrong with which line, the first being 1.
type lineError struct {
	line int
	text string
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.text) }

// fileEvent is one event of a file and the line it stands on.
type fileEvent struct {
	line  int
	event directory.Event
}

// parseFile reads lines "start LOGIN [ADDRESS]" and "stop LOGIN [ADDRESS]".
// Empty lines and those that begin with # are skipped; lines may end with CR LF.
// A file with one bad line gives nothing but the error. It names the line and
// repeats nothing of one that does not begin like an event: a password or token
// may stand there by mistake, and errors are kept and logged.
func parseFile(data []byte, stripRealm bool) ([]fileEvent, error) {
	var events []fileEvent
	n := 0
	for line := range bytes.Lines(data) {
		n++
		e, err := parseLine(line, stripRealm)
		if n > maxFileLines {
			err = fmt.Errorf("a file has at most %d lines; make several", maxFileLines)
		}
		if err != nil {
			return nil, &lineError{n, err.Error()}
		}
		if e.Kind != 0 {
			events = append(events, fileEvent{n, e})
		}
	}
	return events, nil
}

func parseLine(line []byte, stripRealm bool) (directory.Event, error) {
	e := directory.Event{Source: sourceFile}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if len(line) > maxLineBytes {
		return e, fmt.Errorf("longer than %d bytes", maxLineBytes)
	}
	if !utf8.Valid(line) || bytes.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
		return e, fmt.Errorf("not plain text")
	}
	words := strings.Fields(string(line))
	if len(words) == 0 || strings.HasPrefix(words[0], "#") {
		return e, nil
	}
	kind, known := map[string]directory.EventKind{"start": directory.EventStart, "stop": directory.EventStop}[strings.ToLower(words[0])]
	if !known || len(words) < 2 || len(words) > 3 {
		return e, errors.New("not an event; write \"start LOGIN ADDRESS\" or \"stop LOGIN\"")
	}
	login, err := Normalise(words[1], stripRealm)
	if err != nil {
		return e, err
	}
	if len(words) == 3 {
		a, err := netip.ParseAddr(words[2])
		if err != nil || a.Zone() != "" {
			return e, fmt.Errorf("%q is not an IP address", words[2])
		}
		e.Address = a.Unmap()
	}
	e.Kind, e.Login = kind, login
	return e, nil
}
