package smtpd

import (
	"errors"
	"strconv"
	"strings"

	"bsmtpd/mail"
)

const (
	maxEnvID  = 100 // RFC 3461 section 4.4
	maxORCPT  = 500 // RFC 3461 section 4.2
	maxParams = 16
)

// mailParams are the parameters of MAIL.
type mailParams struct {
	size     int64 // SIZE, 0: not told
	utf8     bool
	eightBit bool
	ret      mail.Return
	envID    string
}

// parseMailParams reads "SIZE=1000 BODY=8BITMIME ...".
func parseMailParams(s string) (p mailParams, err error) {
	err = eachParam(s, func(key, value string) error {
		switch key {
		case "SIZE":
			return p.setSize(value)
		case "BODY":
			switch strings.ToUpper(value) {
			case "7BIT":
			case "8BITMIME":
				p.eightBit = true
			default:
				return syntax(501, 4, "BODY is 7BIT or 8BITMIME")
			}
		case "SMTPUTF8":
			if value != "" {
				return syntax(501, 4, "SMTPUTF8 takes no value")
			}
			p.utf8 = true
		case "RET":
			switch strings.ToUpper(value) {
			case "FULL":
				p.ret = mail.ReturnFull
			case "HDRS":
				p.ret = mail.ReturnHeaders
			default:
				return syntax(501, 4, "RET is FULL or HDRS")
			}
		case "ENVID":
			id, err := decodeXtext(value)
			if err != nil || value == "" || len(value) > maxEnvID {
				return syntax(501, 4, "ENVID is not xtext of at most 100 characters (RFC 3461)")
			}
			p.envID = id
		default:
			return syntax(555, 4, "a parameter of MAIL is not known here")
		}
		return nil
	})
	return p, err
}

func (p *mailParams) setSize(value string) error {
	if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
		return syntax(501, 4, "SIZE is a number")
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil { // digits, too many: as large as it can be
		n = 1<<63 - 1
	}
	p.size = n
	return nil
}

// parseRcptParams reads "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b" into to.
func parseRcptParams(s string, to *mail.Recipient) error {
	return eachParam(s, func(key, value string) (err error) {
		switch key {
		case "NOTIFY":
			to.Notify, err = parseNotify(value)
		case "ORCPT":
			to.Original, err = parseORCPT(value)
		default:
			err = syntax(555, 4, "a parameter of RCPT is not known here")
		}
		return err
	})
}

func eachParam(s string, f func(key, value string) error) error {
	var seen [maxParams]string
	n := 0
	for word := range strings.FieldsSeq(s) {
		key, value, eq := strings.Cut(word, "=")
		key = strings.ToUpper(key)
		if eq && value == "" {
			return syntax(501, 4, "a parameter has an empty value")
		}
		for _, k := range seen[:n] {
			if k == key {
				return syntax(501, 4, "a parameter stands twice")
			}
		}
		if n == maxParams {
			return syntax(501, 4, "too many parameters")
		}
		seen[n] = key
		n++
		if err := f(key, value); err != nil {
			return err
		}
	}
	return nil
}

func parseNotify(value string) (n mail.Notify, err error) {
	bad := syntax(501, 4, "NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")
	for word := range strings.SplitSeq(strings.ToUpper(value), ",") {
		switch word {
		case "NEVER":
			n |= mail.NotifyNever
		case "SUCCESS":
			n |= mail.NotifySuccess
		case "FAILURE":
			n |= mail.NotifyFailure
		case "DELAY":
			n |= mail.NotifyDelay
		default:
			return 0, bad
		}
	}
	if n&mail.NotifyNever != 0 && n != mail.NotifyNever {
		return 0, bad
	}
	return n, nil
}

// parseORCPT gives "type;address" decoded (RFC 3461 section 4.2; for utf-8
// RFC 6533 section 3).
func parseORCPT(value string) (string, error) {
	bad := syntax(501, 4, "ORCPT is not \"type;address\" in xtext (RFC 3461)")
	kind, addr, ok := strings.Cut(value, ";")
	if !ok || kind == "" || addr == "" || len(value) > maxORCPT || !isAtom(kind) {
		return "", bad
	}
	decode := decodeXtext
	if strings.EqualFold(kind, "utf-8") {
		decode = decodeUTF8Xtext
	}
	addr, err := decode(addr)
	if err != nil {
		return "", bad
	}
	return strings.ToLower(kind) + ";" + addr, nil
}

func isAtom(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\".[]`, c) >= 0 {
			return false
		}
	}
	return true
}

var errXtext = errors.New("not xtext")

// decodeXtext undoes RFC 3461 section 4. What it decodes to must be printable
// ASCII, for it is written into notifications.
func decodeXtext(s string) (string, error) {
	if !strings.ContainsRune(s, '+') {
		return s, printable(s)
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errXtext
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", errXtext
		}
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String(), printable(b.String())
}

func printable(s string) error {
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7f {
			return errXtext
		}
	}
	return nil
}

// decodeUTF8Xtext undoes utf-8-addr-xtext and utf-8-addr-unitext: "\x{HEX}"
// stands for a code point.
func decodeUTF8Xtext(s string) (string, error) {
	var b strings.Builder
	for s != "" {
		before, after, found := strings.Cut(s, `\x{`)
		for _, r := range before {
			if r <= ' ' || r == 0x7f || r == '\\' || r == '+' || r == '=' || r == '\uFFFD' {
				return "", errXtext
			}
		}
		b.WriteString(before)
		if !found {
			break
		}
		hex, rest, closed := strings.Cut(after, "}")
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil || !closed || n < ' ' || n == 0x7f || n > 0x10FFFF || 0xD800 <= n && n < 0xE000 {
			return "", errXtext
		}
		b.WriteRune(rune(n))
		s = rest
	}
	return b.String(), nil
}
