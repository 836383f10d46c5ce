package mail

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of RFC 5321 section 4.5.3.1, in octets.
const (
	maxLocalPartBytes = 64
	maxDomainBytes    = 255
	maxAddressBytes   = 254 // 256 of the path less its angle brackets
	maxLabelBytes     = 63
)

// Domain is a mail domain in the form in which domains are compared and stored:
// lower case, no trailing dot. International domains stand as A-labels
// ("xn--..."); whoever reads one from outside converts it first.
type Domain string

// Login is an account's access login name, the name that RADIUS reports.
// It is the account's identity everywhere. ParseLogin says which are legal.
type Login string

// Address is a mailbox "local@domain" with its domain as in Domain. The local
// part keeps its case (RFC 5321 section 2.4) and its quotes. The empty Address
// is the null reverse-path <> of RFC 5321 section 4.5.5.
type Address string

// Null is the reverse-path of a notification, which must never be answered
// with another notification.
const Null Address = ""

// IsNull reports whether a is the null reverse-path.
func (a Address) IsNull() bool { return a == Null }

// Local is the part before the last @.
func (a Address) Local() string {
	i := strings.LastIndexByte(string(a), '@')
	if i < 0 {
		return string(a)
	}
	return string(a[:i])
}

// Domain is the part after the last @, empty for the null reverse-path.
func (a Address) Domain() Domain {
	i := strings.LastIndexByte(string(a), '@')
	if i < 0 {
		return ""
	}
	return Domain(a[i+1:])
}

// NeedsUTF8 reports whether a can only be sent with SMTPUTF8 (RFC 6531).
func (a Address) NeedsUTF8() bool { return !isASCII(string(a)) }

// ParseAddress reads a mailbox without angle brackets. The local part is a
// dot-string or a quoted string of RFC 5321 section 4.1.2, UTF-8 included
// (RFC 6531); the domain is a host name in any case, or an address literal
// in brackets. The error says which part is wrong.
func ParseAddress(s string) (Address, error) {
	if len(s) > maxAddressBytes {
		return "", fmt.Errorf("address of %d bytes is longer than %d", len(s), maxAddressBytes)
	}
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return "", fmt.Errorf("address %q has no @", s)
	}
	local, domain := s[:i], s[i+1:]
	if err := checkLocal(local); err != nil {
		return "", fmt.Errorf("address %q: %w", s, err)
	}
	if strings.HasPrefix(domain, "[") {
		if err := checkLiteral(domain); err != nil {
			return "", fmt.Errorf("address %q: %w", s, err)
		}
		return Address(local + "@" + strings.ToLower(domain)), nil
	}
	d, err := ParseDomain(domain)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", s, err)
	}
	if n := len(local) + 1 + len(d); n > maxAddressBytes {
		return "", fmt.Errorf("address of %d bytes is longer than %d", n, maxAddressBytes)
	}
	return Address(local + "@" + string(d)), nil
}

// ParseDomain reads a host name and returns it in lower case without its
// trailing dot. UTF-8 labels pass unchanged in case; convert them with IDNA
// before they are compared.
func ParseDomain(s string) (Domain, error) {
	s = strings.TrimSuffix(s, ".")
	switch {
	case s == "":
		return "", errors.New("the domain is empty")
	case !utf8.ValidString(s):
		return "", errors.New("the domain is not valid UTF-8")
	}
	s = strings.ToLower(s) // which can make it longer
	if len(s) > maxDomainBytes {
		return "", fmt.Errorf("domain of %d bytes is longer than %d", len(s), maxDomainBytes)
	}
	for label := range strings.SplitSeq(s, ".") {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("domain %q: %w", s, err)
		}
	}
	return Domain(s), nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("a label is empty")
	case len(label) > maxLabelBytes:
		return fmt.Errorf("label %q is longer than %d bytes", label, maxLabelBytes)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("label %q begins or ends with a hyphen", label)
	}
	for _, r := range label {
		// The underscore is no host name character, but mail domains have it.
		if r >= 0x80 || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' {
			continue
		}
		return fmt.Errorf("label %q has the character %q", label, r)
	}
	return nil
}

// checkLiteral checks an address literal's characters: dcontent of RFC 5321
// section 4.1.3, without angle brackets, between brackets.
func checkLiteral(domain string) error {
	n := len(domain)
	if n < 3 || domain[n-1] != ']' {
		return errors.New("the address literal is empty or not closed")
	}
	for _, r := range domain[1 : n-1] {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`[\]<>`, r) {
			return fmt.Errorf("the address literal has the character %q", r)
		}
	}
	return nil
}

func checkLocal(local string) error {
	switch {
	case local == "":
		return errors.New("the local part is empty")
	case len(local) > maxLocalPartBytes:
		return fmt.Errorf("the local part is longer than %d bytes", maxLocalPartBytes)
	case !utf8.ValidString(local):
		return errors.New("the local part is not valid UTF-8")
	case local[0] == '"':
		return checkQuoted(local)
	}
	dot := true // a dot is not allowed here
	for _, r := range local {
		switch {
		case r == '.':
			if dot {
				return errors.New("the local part has a misplaced dot")
			}
			dot = true
		case isAtext(r):
			dot = false
		default:
			return fmt.Errorf("the local part has the character %q", r)
		}
	}
	if dot {
		return errors.New("the local part ends with a dot")
	}
	return nil
}

func checkQuoted(local string) error {
	if len(local) < 2 || local[len(local)-1] != '"' {
		return errors.New("the local part's quote is not closed")
	}
	escaped := false
	for _, r := range local[1 : len(local)-1] {
		switch {
		case r < 0x20 || r == 0x7f:
			return fmt.Errorf("the local part has the control character %q", r)
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case r == '"':
			return errors.New("the local part has a quote inside its quotes")
		}
	}
	if escaped {
		return errors.New("the local part's quote is not closed")
	}
	return nil
}

func isAtext(r rune) bool {
	return r >= 0x80 || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' ||
		strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

const maxLoginBytes = 64

// ParseLogin reads a login name: 1 to 64 of the characters a-z, 0-9, dot,
// hyphen, underscore and plus, upper case made lower, no dot or hyphen first.
// That keeps it usable as the local part of the account's own address and as a
// file name.
func ParseLogin(s string) (Login, error) {
	if isASCII(s) { // the Kelvin sign's lower case is a k
		s = strings.ToLower(s)
	}
	if s == "" {
		return "", errors.New("the login is empty")
	}
	if len(s) > maxLoginBytes {
		return "", fmt.Errorf("login %q is longer than %d characters", s, maxLoginBytes)
	}
	for i, r := range s {
		ok := '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || r == '_' || i > 0 && (r == '.' || r == '-' || r == '+')
		if !ok {
			return "", fmt.Errorf("login %q has the character %q; use a-z 0-9 . - _ + and begin with a letter or digit", s, r)
		}
	}
	if strings.Contains(s, "..") || s[len(s)-1] == '.' {
		return "", fmt.Errorf("login %q has a misplaced dot", s)
	}
	return Login(s), nil
}
