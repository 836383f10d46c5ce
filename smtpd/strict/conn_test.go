package strict

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"bsmtpd/mail"
)

// say gives a server one dialogue and compares replies, without the greeting,
// line by line. A wanted line may be the beginning of what is heard.
func (w *world) say(t *testing.T, said string, want ...string) {
	t.Helper()
	heard := strings.Split(strings.TrimSuffix(w.play(said), "\r\n"), "\r\n")[1:]
	for i := range max(len(heard), len(want)) {
		got, wanted := "(closed)", "(closed)"
		if i < len(heard) {
			got = heard[i]
		}
		if i < len(want) {
			wanted = want[i]
		}
		if !strings.HasPrefix(got, wanted) {
			t.Errorf("%q: heard %q, want %q", said, got, wanted)
		}
	}
}

var helloReply = []string{"250-mx.example", "250-SIZE 65536", "250-PIPELINING", "250-8BITMIME", "250-ENHANCEDSTATUSCODES", "250-CHUNKING", "250-SMTPUTF8", "250 DSN"}

func after(first []string, more ...string) []string { return append(slices.Clone(first), more...) }

func TestGreetingsNameTheServerAndTheSize(t *testing.T) {
	w := newWorld(t)
	w.say(t, hello+"HELO client.example\r\nQUIT\r\n", after(helloReply, "250 mx.example", "221 2.0.0 Bye")...)
}

func TestNothingComesBeforeTheGreeting(t *testing.T) {
	newWorld(t).say(t, envelope+"DATA\r\nBDAT 3\r\nabcNOOP\r\nAUTH PLAIN\r\nQUIT\r\n",
		"503 5.5.1 say EHLO first", "503", "503", "503", "250", "503", "221")
}

func TestLinesThatAreNoCommands(t *testing.T) {
	w := newWorld(t)
	w.say(t, "NOOP\nNO\rOP\r\nNOOP \x00\r\nNOOP \xff\r\nNOOP \u00e9\r\nNOOP "+strings.Repeat("x", 993)+"\r\nNOOP "+strings.Repeat("x", 994)+"\r\nNOOP "+strings.Repeat("x", 9000)+
		"\r\n\r\nSTARTTLSX\r\nNOOP\tx\r\nfoo\r\nQUIT\r\n",
		"500 5.5.2 this line ends in a bare LF; commands end in CRLF",
		"500 5.5.2 this line has a bare CR or a NUL in it", "500 5.5.2 this line has a bare CR or a NUL in it",
		"500 5.5.2 this line is neither ASCII nor UTF-8", "250", "250",
		"500 5.5.2 this line is longer than 1000 octets", "500 5.5.2 this line is longer",
		"500 5.5.2 this command is not known", "500", "500", "500", "221")
	if want := []Cause{LineEnding, LineEnding, LineEnding, Syntax, Syntax, Syntax, Syntax, Syntax, Syntax, Syntax}; !slices.Equal(w.causes, want) {
		t.Errorf("causes %v", w.causes)
	}
	w.say(t, strings.Repeat("x", 100_000), "500 5.5.2 this line is longer")
}

func TestOneFaultIsNamedWithItsLine(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{"a: b\r\n\r\nx\r\ny\nz\r\n\x00\r\n", "550 5.5.2 line 4 of the message has a bare LF; lines end in CRLF"},
		{"a: b\r\n\r\nx\ry\r\n\n", "550 5.5.2 line 3 of the message has a bare CR; lines end in CRLF"},
		{"a\x00\r\n", "550 5.6.0 line 1 of the message has a NUL octet"},
		{"a: b\r\n" + strings.Repeat("x", 101) + "\r\n", "550 5.6.0 line 2 of the message has more than 100 octets; wrap it or use a transfer encoding"},
		{"a: b\r\n\r\nx\r", "550 5.5.2 line 3 of the message has a bare CR"},
	} {
		w := newWorld(t)
		data := tt.body
		if !strings.HasSuffix(data, "\r\n") {
			data += "\r\n"
		}
		w.say(t, fmt.Sprintf("%s%sDATA\r\n%s.\r\n%sBDAT %d LAST\r\n%sNOOP\r\n", hello, envelope, data, envelope, len(tt.body), tt.body),
			after(helloReply, "250", "250", "354", tt.want, "250", "250", tt.want, "250")...)
		for _, bad := range w.told {
			if bad.String() != w.told[0].String() {
				t.Errorf("told %v", w.told)
			}
		}
		if len(w.told) != 2 || len(w.mails) > 0 {
			t.Errorf("told %v, kept %v", w.told, w.mails)
		}
	}
}

func TestTheLargestMessageFitsAndOneOctetMoreDoesNot(t *testing.T) {
	line := strings.Repeat("x", 62) + "\r\n"
	most := strings.Repeat(line, 1024)
	over := strings.Repeat(line, 1023) + "x" + line
	dots := strings.Repeat("."+strings.Repeat(".x", 31)+"\r\n", 1024) // 65 on the wire, 64 in the message
	w := newWorld(t)
	for _, tt := range []struct{ said, want string }{
		{"DATA\r\n" + most + ".\r\n", "250"},
		{"DATA\r\n" + dots + ".\r\n", "250"},
		{"DATA\r\n" + over + ".\r\n", "552 5.3.4 the message is larger than the 65536 octets this server takes"},
		{"DATA\r\n" + most + "\r\n.\r\n", "552"},
		{"BDAT 65536 LAST\r\n" + most, "250"},
		{"BDAT 65537 LAST\r\n" + over, "552 5.3.4"},
		{"BDAT 131073 LAST\r\n" + over, "552 5.3.4"},
	} {
		want := []string{"250", "250", tt.want, "250"}
		if strings.HasPrefix(tt.said, "DATA") {
			want = slices.Insert(want, 2, "354")
		}
		if strings.HasPrefix(tt.said, "BDAT 131073") {
			want = want[:3] // too large to be passed over: hung up on
		}
		w.say(t, hello+envelope+tt.said+"NOOP\r\n", after(helloReply, want...)...)
	}
	if len(w.bodies()) != 3 {
		t.Errorf("kept %d", len(w.bodies()))
	}
	w.say(t, hello+envelope+"BDAT 65530\r\n"+most[:65530]+"BDAT 7 LAST\r\nabcdefgNOOP\r\n",
		after(helloReply, "250", "250", "250 2.0.0 65530 octets received", "552", "250")...)
	w.say(t, hello+envelope+"BDAT 4000000000000000000\r\n", after(helloReply, "250", "250", "552")...)
	w.say(t, hello+envelope+"DATA\r\n"+most+most+most, after(helloReply, "250", "250", "354", "552")...)
}

func TestChunks(t *testing.T) {
	w := newWorld(t)
	w.say(t, hello+"BDAT 3\r\nabc"+"MAIL FROM:<a@b.example>\r\nBDAT 6\r\nQUIT\r\nRCPT TO:<no@e.example>\r\nBDAT 6 LAST\r\nQUIT\r\nRCPT TO:<d@e.example>\r\n"+
		"BDAT 3\r\n.\r\n"+"MAIL FROM:<>\r\nRCPT TO:<>\r\nDATA\r\nSTARTTLS\r\nNOOP\r\nFOO\r\nNOOP\n"+"BDAT 1\r\n\r"+"BDAT 0\r\n"+"BDAT 4 LAST\r\n\n..z"+"QUIT\r\n",
		after(helloReply, "503 5.5.1 no valid recipients", "250", "503", "550", "503", "250",
			"250 2.0.0 3 octets received", "503 5.5.1 the message has begun with BDAT", "503", "503", "503", "250", "500", "500",
			"250 2.0.0 1 octets received", "250 2.0.0 0 octets received", "250", "221")...)
	if got := w.bodies(); !slices.Equal(got, []string{".\r\n\r\n..z"}) {
		t.Errorf("kept %q", got)
	}
	for _, bad := range []string{"BDAT", "BDAT x", "BDAT -1", "BDAT +1", "BDAT 1 FIRST", "BDAT 1 LAST LAST", "BDAT 99999999999999999999x", "BDAT 99999999999999999999 x"} {
		w.say(t, hello+envelope+bad+"\r\nQUIT\r\n", after(helloReply, "250", "250", "501 5.5.4 expected BDAT size [LAST]")...)
		w.say(t, hello+envelope+"BDAT 1\r\nx"+bad+"\r\nQUIT\r\n", after(helloReply, "250", "250", "250", "501 5.5.4")...)
	}
	for _, large := range []string{"BDAT 7000000000000000000", "BDAT 99999999999999999999", "BDAT 99999999999999999999 LAST"} {
		w.say(t, hello+envelope+large+"\r\nQUIT\r\n", after(helloReply, "250", "250", "552 5.3.4")...)
	}
	if len(w.bodies()) != 1 {
		t.Errorf("kept %q", w.bodies())
	}
}

func TestARefusedMessageEndsWhereItEnds(t *testing.T) {
	w := newWorld(t)
	for _, who := range []string{"early", "half"} {
		want := []string{"452 4.3.1 no room"}
		if who == "half" {
			want = []string{"452-no room", "452 4.3.1 for more"}
		}
		rcpt := "MAIL FROM:<>\r\nRCPT TO:<" + who + "@e.example>\r\n"
		all := after(helloReply, "250", "250", "354")
		all = append(all, want...)
		all = append(all, "250", "250")
		all = append(all, want...)
		all = append(all, "503", "250")
		w.say(t, hello+rcpt+"DATA\r\nQUIT\r\n..\r\n.\r\n"+rcpt+"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", all...)
	}
	if len(w.panics) > 0 {
		t.Error(w.panics)
	}
}

// There is one way to read a message. Nothing that came another way is taken.
func TestABackendMustReadTheBody(t *testing.T) {
	w := newWorld(t)
	w.say(t, hello+"MAIL FROM:<>\r\nRCPT TO:<wrong@e.example>\r\nDATA\r\nx\r\n.\r\nNOOP\r\n", after(helloReply, "250", "250", "354", "554 5.0.0", "250")...)
	w.say(t, hello+"MAIL FROM:<>\r\nRCPT TO:<rash@e.example>\r\nDATA\r\nx\r\n.\r\nNOOP\r\n", after(helloReply, "250", "250", "354", "421 4.3.0")...)
	if len(w.panics) != 1 || len(w.bodies()) > 0 {
		t.Errorf("panics %v, kept %q", w.panics, w.bodies())
	}
}

func TestRepliesInOurWords(t *testing.T) {
	w := newWorld(t)
	w.cfg.Texts = map[string]string{"MAIL": "250 2.1.0 sender ok", "501 5.5.4 DATA command should not have any arguments": "501 5.5.4 no"}
	w.answer = map[string]Answer{
		"VRFY": {Reply: mail.Reply{Code: 252, Status: mail.Status{2, 5, 0}, Text: "perhaps"}},
		"ETRN": {Reply: mail.Reply{Code: 458, Status: mail.Status{4, 3, 0}, Text: "not \u00e9\x00now"}},
		"GET":  {Reply: mail.Reply{Code: 554, Status: mail.Status{5, 5, 1}, Text: "a mail server"}, HangUp: true},
	}
	w.say(t, hello+"MAIL FROM:<x@y.example>\r\nDATA x\r\nVRFY x\r\nETRN x\r\nGET / HTTP/1.1\r\nNOOP\r\n",
		after(helloReply, "250 2.1.0 sender ok", "501 5.5.4 no", "252 2.5.0 perhaps", "458 4.3.0 not ???now", "554 5.5.1 a mail server")...)
}

// What a backend says goes into the text of replies, and into nothing else.
func TestRepliesArePrintable(t *testing.T) {
	newWorld(t).say(t, hello+"MAIL FROM:<>\r\nRCPT TO:<odd\u00e9@e.example>\r\nQUIT\r\n",
		after(helloReply, "250", "451-?? ??250 no", "451 4.3.0 odd??@e.example", "221")...)
}

func TestTooMuchOfTheSameEndsTheSession(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxErrors, w.cfg.MaxJunk = 3, 2
	w.say(t, "FOO\r\nNOOP\nMAIL FROM:<>\r\nQUIT\r\n", "500", "500", "503", "421 4.7.0 too many errors: closing the connection")
	w.say(t, hello+envelope+"DATA\r\na\nb\r\n.\r\nMAIL\r\nRCPT\r\nNOOP\r\n", after(helloReply, "250", "250", "354", "550", "501", "502", "421 4.7.0 too many errors")...)
	w.say(t, hello+"NOOP\r\nRSET\r\nNOOP\r\n", after(helloReply, "250", "421 4.7.0 too many commands without a message")...)
	w.say(t, hello+"FOO\r\n"+envelope+"DATA\r\na\r\n.\r\nFOO\r\nNOOP\r\nFOO\r\nNOOP\r\n", after(helloReply, "500", "250", "250", "354", "250", "500", "250", "421")...)
	w.say(t, hello+envelope+"BDAT 1\r\nxNOOP\r\nNOOP\r\nNOOP\r\n", after(helloReply, "250", "250", "250", "250", "421")...)
	if len(w.bodies()) != 1 {
		t.Errorf("kept %q", w.bodies())
	}
}

func TestA421EndsTheSession(t *testing.T) {
	w := newWorld(t)
	w.say(t, hello+"MAIL FROM:<>\r\nRCPT TO:<busy@e.example>\r\nNOOP\r\n", after(helloReply, "250", "421 4.3.2 not now")...)
}

func TestPanicsEndOneSession(t *testing.T) {
	w := newWorld(t)
	w.say(t, hello+"MAIL FROM:<>\r\nRCPT TO:<panic@e.example>\r\nNOOP\r\n", after(helloReply, "250", "421 4.0.0 Internal server error")...)
	w.say(t, hello+"MAIL FROM:<>\r\nRCPT TO:<boom@e.example>\r\nDATA\r\nx\r\n.\r\nNOOP\r\n", after(helloReply, "250", "250", "354", "421 4.0.0 Internal server error")...)
	w.say(t, hello+"MAIL FROM:<>\r\nRCPT TO:<boom@e.example>\r\nBDAT 1 LAST\r\nxNOOP\r\n", after(helloReply, "250", "250", "421 4.0.0 Internal server error")...)
	if len(w.panics) > 0 {
		t.Errorf("those are the backend's: %v", w.panics)
	}
	x := newWorld(t)
	raw := newTape("NOOP\r\n")
	x.l.queue <- New(raw, &x.cfg, &x.pool, rash{x})
	<-raw.done
	if !strings.HasSuffix(raw.heard.String(), "\r\n421 4.3.0 a fault in this server; try again later\r\n") || len(x.panics) != 1 {
		t.Errorf("heard %q, panics %v", raw.heard.String(), x.panics)
	}
}

type rash struct{ *world }

func (rash) Command(string, []byte) (Answer, bool) { panic("a bug in the watcher") }

// A panic while a message is read is not the end of the message.
func TestAPanicAmidAMessageKeepsNothingOfIt(t *testing.T) {
	w := newWorld(t)
	raw := newTape(hello + envelope + "BDAT 3\r\nabcBDAT x\r\n")
	w.l.queue <- New(raw, &w.cfg, &w.pool, touchy{w})
	<-raw.done
	if got := codes(raw.heard.String()); !slices.Equal(got, []string{"250", "250", "250", "250", "501", "421"}) || len(w.panics) != 1 {
		t.Errorf("heard %v, panics %v", got, w.panics)
	}
	if got := w.bodies(); len(got) > 0 {
		t.Errorf("kept %q", got)
	}
}

type touchy struct{ *world }

func (touchy) Refused(*Fault) { panic("a bug in the watcher") }

// authed is a backend that asks for a word.
type authed struct{ session }

func (a *authed) NewSession(*smtp.Conn) (smtp.Session, error) { return a, nil }
func (a *authed) AuthMechanisms() []string                    { return []string{"WORD"} }
func (a *authed) Auth(string) (sasl.Server, error)            { return &word{}, nil }

type word struct{ asked bool }

func (w *word) Next(response []byte) ([]byte, bool, error) {
	if !w.asked {
		w.asked = true
		return []byte("word?"), false, nil
	}
	if string(response) != "sesame" {
		return nil, false, smtp.ErrAuthFailed
	}
	return nil, true, nil
}

func TestAnswersOfAuthenticationAreNoCommands(t *testing.T) {
	w := newWorld(t)
	w.srv.Backend, w.srv.AllowInsecureAuth = &authed{}, true
	w.say(t, "HELO x\r\nAUTH WORD\r\nUVVJVA==\r\nAUTH WORD\r\nc2VzYW1l\r\nAUTH WORD\r\nQUIT\r\n",
		"250", "334 d29yZD8=", "535", "334", "235", "503", "221")
}

// What is pipelined is answered at once, in one write; but what became of a
// message is said before the next is stored.
func TestRepliesLeaveTogether(t *testing.T) {
	w := newWorld(t)
	raw := &countWrites{tape: newTape(hello, envelope+"DATA\r\n", "x\r\n.\r\n"+envelope+"BDAT 1 LAST\r\nx"+"QUIT\r\n")}
	w.serve(raw)
	<-raw.done
	if raw.writes != 5 {
		t.Errorf("%d writes for 220, EHLO, 354, the first message and the rest", raw.writes)
	}
}

type countWrites struct {
	*tape
	writes int
}

func (c *countWrites) Write(p []byte) (int, error) {
	c.writes++
	return c.tape.Write(p)
}
