package directory

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"bsmtpd/mail"
)

// readAll gives one line per record or error.
func readAll(text string, f Format) string {
	var out []string
	for rec, err := range ReadRecords(strings.NewReader(text), "f", f) {
		if err != nil {
			out = append(out, "error "+err.Error())
			continue
		}
		line := fmt.Sprintf("%s quota=%d", rec.Account.Login, rec.Account.Quota)
		for _, d := range rec.Domains {
			line += fmt.Sprintf(" %s(%s)=%s", d.Name, d.Login, d.Route)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestFilesAreReadAndTheirErrorsPlaced(t *testing.T) {
	for _, c := range []struct {
		name, text string
		format     Format
		want       string
	}{
		{"a file as people write it", "\ufeffLogin, domains ,quota\njansen,jansen.example jansen2.example=mail.x:26,20MiB\n\npiet,,\n", FormatCSV,
			"jansen quota=20971520 jansen.example(jansen)= jansen2.example(jansen)=mail.x:26\npiet quota=0"},
		{"an unknown column", "login,colour\nx,red\n", FormatCSV,
			`error f:1: column "colour" is unknown; the columns are login,addresses,plan,quota,contact,locale,access,inactive,route,aliases,filtered,domains`},
		{"a column twice", "login,login\n", FormatCSV, `error f:1: column "login" stands twice`},
		{"no login", "plan\nfree\n", FormatCSV, `error f:1: the column login is missing`},
		{"a wrong line among good ones", "login,plan\na,free\nb,gold\nc\nd,paid\n", FormatCSV,
			"a quota=0\nerror f:3: plan \"gold\" is unknown; use free or paid\nerror f:4: the record has 1 fields, and the first line names 2 columns\nd quota=0"},
		{"a misplaced quote", "login\na\nb\"b\nc\n", FormatCSV, "a quota=0\nerror f:3: bare \" in non-quoted-field\nc quota=0"},
		{"a quote over lines", "login,inactive\na,\"x\ny\"\nb,gone\n", FormatCSV,
			"error f:2: the reason for being inactive must be one line of UTF-8 text\nb quota=0"},
		{"nothing", "", FormatCSV, ""},
		{"JSON lines", `{"login":"jansen","quota":"1GiB","route":"mail.x:26/require","domains":[{"domain":"jansen.example","route":"192.0.2.1"}]}` + "\n\n" + `{"login":"piet","quota":5,"version":7}`, FormatJSONLines,
			"jansen quota=1073741824 jansen.example(jansen)=192.0.2.1\npiet quota=5"},
		{"wrong JSON", "{\"login\":\"a\",\"colour\":1}\n{\"login\":\"b\"} x\n[]\n{\"login\":\"c\"}", FormatJSONLines,
			"error f:1: json: unknown field \"colour\"\nerror f:2: something follows the JSON object\nerror f:3: json: cannot unmarshal array into Go value of type directory.recordJSON\nc quota=0"},
		{"an unknown format", "", "xml", `error f:0: format "xml" is unknown; use csv or jsonl`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := readAll(c.text, c.format); got != c.want {
				t.Fatalf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestARecordHasAGreatestLength(t *testing.T) {
	for format, text := range map[Format]string{
		FormatCSV:       "login\n\"" + strings.Repeat("a\n", MaxRecordBytes),
		FormatJSONLines: `{"login":"` + strings.Repeat("a", MaxRecordBytes),
	} {
		got := readAll(text, format)
		if !strings.Contains(got, "longer than 4MiB") || strings.Contains(got, "\n") {
			t.Errorf("%s: %.200s", format, got)
		}
	}
}

func TestWhatIsExportedCanBeImported(t *testing.T) {
	full := Account{Login: "jansen", Plan: PlanPaid, Quota: 1 << 30, Contact: `"a b"@example.nl`, Locale: LocaleNL, Inactive: `not "paid", twice`,
		Access: AccessADSL, Route: Route{Host: "2001:db8::1", Port: 26, TLS: TLSVerify}, Aliases: []string{"info", "jörg"}, Filtered: true}
	at("192.0.2.1", "2001:db8::2")(&full)
	recs := []Record{
		{Account: full, Domains: []Domain{{Name: "a.example", Login: "jansen"}, {Name: "b.example", Login: "jansen", Route: Route{Host: "b", Port: 1}}}},
		{Account: Account{Login: "piet", Plan: PlanFree, Locale: LocaleEN}},
	}
	for _, format := range []Format{FormatCSV, FormatJSONLines} {
		var buf bytes.Buffer
		w, err := NewRecordWriter(&buf, format)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if err := w.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		text := buf.String()
		i := 0
		for got, err := range ReadRecords(&buf, "f", format) {
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", recs[i]); g != w {
				t.Errorf("%s\ngot  %s\nwant %s\nfile\n%s", format, g, w, text)
			}
			i++
		}
		if i != len(recs) {
			t.Errorf("%s: %d records", format, i)
		}
	}
}

func FuzzReadRecords(f *testing.F) {
	f.Add("login,domains\nx,a.example=b:25\n", true)
	f.Add("{\"login\":\"a\",\"quota\":\"1GiB\",\"domains\":[{\"domain\":\"x.example\"}]}\n", false)
	f.Add("login,addresses,inactive\nx,\"1.2.3.4 ::1\",\"a\n\"\"b\"", true)
	f.Fuzz(func(t *testing.T, text string, asCSV bool) {
		format := FormatJSONLines
		if asCSV {
			format = FormatCSV
		}
		for rec, err := range ReadRecords(strings.NewReader(text), "f", format) {
			if err != nil {
				continue
			}
			// What is read is canonical, and survives being written.
			again, err := canonical(rec)
			if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", rec) {
				t.Fatalf("not canonical: %+v %v", rec, err)
			}
			var buf bytes.Buffer
			w, _ := NewRecordWriter(&buf, format)
			if err := w.Write(rec); err != nil {
				t.Fatal(err)
			}
			w.Flush()
			for got, err := range ReadRecords(&buf, "f", format) {
				if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", rec) {
					t.Fatalf("%+v came back as %+v, %v", rec, got, err)
				}
			}
		}
	})
}

func FuzzLookup(f *testing.F) {
	f.Add("jansen+x@provider.example")
	f.Add(`"\`)
	f.Fuzz(func(t *testing.T, addr string) {
		r := Reader{R: nothing{}, Provider: []mail.Domain{"provider.example"}}
		if _, err := r.Lookup(mail.Address(addr)); err != nil {
			t.Fatal(err)
		}
	})
}
