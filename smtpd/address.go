package smtpd

import (
	"errors"
	"strings"

	"golang.org/x/net/idna"

	"bsmtpd/mail"
)

var errPath = errors.New("expected an address in angle brackets")

// cutPath gives the path at the beginning of what stands after FROM: or TO:. It
// takes what RFC 5321 section 4.1.2 calls a path, without its brackets and
// without a source route (which MUST be accepted and ignored, appendix C), and
// also a path without brackets, which many clients send. go-smtp has read it
// before, and has read the parameters behind it.
func cutPath(s string) (path string, err error) {
	s = strings.TrimLeft(s, " ")
	if !strings.HasPrefix(s, "<") {
		path, _, _ = strings.Cut(s, " ")
		if path == "" || strings.ContainsAny(path, "<>") {
			return "", errPath
		}
		return path, nil
	}
	end := endOfPath(s)
	if end < 0 || end+1 < len(s) && s[end+1] != ' ' {
		return "", errPath
	}
	path = s[1:end]
	if strings.HasPrefix(path, "@") {
		_, after, ok := strings.Cut(path, ":")
		if !ok {
			return "", errPath
		}
		path = after
	}
	return path, nil
}

// endOfPath is the index of the closing bracket outside of quotes, or -1.
func endOfPath(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if quoted {
				i++
			}
		case '"':
			quoted = !quoted
		case '>':
			if !quoted {
				return i
			}
		case '<':
			if !quoted {
				return -1
			}
		}
	}
	return -1
}

// parseAddress reads a mailbox from outside. An international domain is turned
// into A-labels, the form in which domains are compared; utf8 says whether the
// client has asked for SMTPUTF8, without which an address is ASCII.
func parseAddress(s string, utf8 bool) (mail.Address, error) {
	if !isASCII(s) {
		if !utf8 {
			return "", refuse(reasonSyntax, 553, mail.Status{5, 6, 7}, "this address needs SMTPUTF8 (RFC 6531)")
		}
		i := strings.LastIndexByte(s, '@')
		if domain := s[i+1:]; i >= 0 && !isASCII(domain) {
			a, err := idna.Lookup.ToASCII(domain)
			if err != nil {
				return "", syntax(501, 2, "this is not an international domain name")
			}
			s = s[:i+1] + a
		}
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return "", syntax(501, 2, err.Error())
	}
	return a, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
