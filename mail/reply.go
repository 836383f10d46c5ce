package mail

import (
	"fmt"
	"strconv"
	"strings"
)

// Status is an enhanced status code (RFC 3463): class, subject, detail.
type Status [3]uint8

// String is the code as replies and notifications carry it: "5.2.2".
func (s Status) String() string { return fmt.Sprintf("%d.%d.%d", s[0], s[1], s[2]) }

// Reply is one SMTP reply. Code 0 means that there was none.
type Reply struct {
	Code   int    `cbor:"1,keyasint,omitempty"`
	Status Status `cbor:"2,keyasint,omitempty"`
	Text   string `cbor:"3,keyasint,omitempty"` // without code and enhanced code; lines joined by "\n"
}

// String is the reply on one line.
func (r Reply) String() string {
	text := strings.ReplaceAll(r.Text, "\n", " ")
	if r.Code == 0 {
		return text
	}
	if r.Status == (Status{}) {
		return strings.TrimSpace(fmt.Sprintf("%d %s", r.Code, text))
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", r.Code, r.Status, text))
}

// Temporary reports a 4xx reply.
func (r Reply) Temporary() bool { return r.Code/100 == 4 }

// Permanent reports a 5xx reply.
func (r Reply) Permanent() bool { return r.Code/100 == 5 }

// Positive reports a 2xx reply.
func (r Reply) Positive() bool { return r.Code/100 == 2 }

// ParseStatus splits an enhanced status code off the front of a reply's text.
// Without one it returns the zero Status and the text as it was.
func ParseStatus(text string) (Status, string) {
	word, rest, _ := strings.Cut(text, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("245", parts[0]) {
		return Status{}, text
	}
	var s Status
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n > 255 || len(p) > 3 {
			return Status{}, text
		}
		s[i] = uint8(n)
	}
	return s, rest
}
