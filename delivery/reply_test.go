package delivery

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"bsmtpd/mail"
	"bsmtpd/spool"
)

func parse(s string) (answer, error) {
	return readAnswer(bufio.NewReaderSize(strings.NewReader(s), maxReplyLine))
}

func TestRepliesAreRead(t *testing.T) {
	for in, want := range map[string]mail.Reply{
		"250 ok\r\n":                            {Code: 250, Text: "ok"},
		"250\r\n":                               {Code: 250},
		"250 2.1.5 ok\n":                        {Code: 250, Status: mail.Status{2, 1, 5}, Text: "ok"},
		"550-5.1.1 no such\r\n550 5.1.1 user\n": {Code: 550, Status: mail.Status{5, 1, 1}, Text: "no such\nuser"},
		"450 5.1.1 contradicts\r\n":             {Code: 450, Text: "5.1.1 contradicts"},
		"451 \x1b[2Jtab\there \xff\r\n":         {Code: 451, Text: "?[2Jtab here ?"},
	} {
		a, err := parse(in)
		if err != nil || a.Reply != want {
			t.Errorf("%q: %+v, %v", in, a.Reply, err)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, in := range []string{"hello\r\n", "25 ok\r\n", "150 early\r\n", "999 x\r\n", "250_x\r\n", "\r\n",
		"250-a\r\n550 b\r\n", "220 " + strings.Repeat("x", 5000), strings.Repeat("220-x\r\n", 1000)} {
		_, err := parse(in)
		if _, ok := err.(*nonsense); !ok {
			t.Errorf("%.20q: %v", in, err)
		}
	}
	if _, err := parse("250-a\r\n250"); err != io.EOF {
		t.Error(err)
	}
}

func TestPixBannerIsKnown(t *testing.T) {
	for banner, want := range map[string]bool{
		"****************************": true,
		"2******0*****2* *0***":        true,
		"mail.example.net ESMTP":       false,
		"*** welcome ***":              false,
		"":                             false,
		"20":                           false,
	} {
		if isPix(banner) != want {
			t.Errorf("%q: %v", banner, !want)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "220 \xff\xfe\r\n", "550 5.1.1 x\n", "25", "250-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parse(s)
		if err != nil {
			return
		}
		if a.Code < 200 || a.Code > 599 {
			t.Fatalf("code %d", a.Code)
		}
		if len(a.Text) > spool.MaxWordsBytes || !utf8.ValidString(a.Text) || strings.ContainsAny(a.Text, "\r\x00\x1b") {
			t.Fatalf("text %q", a.Text)
		}
		if a.Status != (mail.Status{}) && int(a.Status[0]) != a.Code/100 {
			t.Fatalf("status %v with code %d", a.Status, a.Code)
		}
	})
}
