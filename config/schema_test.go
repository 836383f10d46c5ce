package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"bsmtpd/host"
	"bsmtpd/mail"
)

// shop is a configuration with a field of every kind.
type shop struct {
	Till till `key:"till" doc:"Where money goes."`
}

type till struct {
	Open    bool          `key:"open" default:"true" doc:"d"`
	Drawers int           `key:"drawers" default:"3" doc:"d"`
	Rate    float64       `key:"rate" default:"0.5" doc:"d"`
	Port    uint16        `key:"port" doc:"d"`
	Wait    time.Duration `key:"wait" default:"90m" doc:"d"`
	Most    mail.Size     `key:"most" default:"1.5KiB" doc:"d"`
	Prefix  netip.Prefix  `key:"prefix" default:"10.0.0.0/8" doc:"d"`
	Names   []string      `key:"names" default:"a,b" doc:"d"`
	PIN     string        `key:"pin" secret:"yes" doc:"d"`
	PINFile string        `key:"pin_file" doc:"d"`
	TLS     struct {
		KeyFile string `key:"key_file" doc:"d"`
	} `key:"tls" doc:"d"`
	Keys []clerk `key:"clerks" default:"[{name: ann}]" doc:"d"`
	Log  func()  // no setting
}

type clerk struct {
	Name   string `key:"name" doc:"d"`
	Badge  string `key:"badge" secret:"yes" doc:"d"`
	Bfile  string `key:"badge_file" doc:"d"`
	Weekly int    `key:"weekly" default:"40" doc:"d"`
}

func (c till) Check() error {
	var errs []error
	if c.Drawers == 0 {
		errs = append(errs, errors.New("drawers: 0 is not allowed; use 1 or more"))
	}
	for i, k := range c.Keys {
		if k.Name == "" {
			errs = append(errs, fmt.Errorf("clerks[%d].name: must not be empty", i))
		}
	}
	return errors.Join(errors.Join(errs...))
}

var shopSchema = schemaOf(reflect.TypeFor[shop]())

func loadShop(t *testing.T, dir, text string) (shop, error) {
	t.Helper()
	var s shop
	file := filepath.Join(dir, "shop.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	err := load(Options{FS: host.System().FS, File: file}, shopSchema, &s)
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), dir+"/", ""))
	}
	return s, err
}

func TestEveryKindOfFieldHasItsDefault(t *testing.T) {
	got, err := loadShop(t, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	want := shop{till{Open: true, Drawers: 3, Rate: 0.5, Wait: 90 * time.Minute, Most: 1536,
		Prefix: netip.MustParsePrefix("10.0.0.0/8"), Names: []string{"a", "b"}, Keys: []clerk{{Name: "ann", Weekly: 40}}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestListsOfSections(t *testing.T) {
	got, err := loadShop(t, t.TempDir(), "till:\n  names: []\n  clerks:\n    - name: bob\n      badge: x\n    - {name: eve, weekly: 8}\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []clerk{{Name: "bob", Badge: "x", Weekly: 40}, {Name: "eve", Weekly: 8}}
	if !reflect.DeepEqual(got.Till.Keys, want) || len(got.Till.Names) != 0 {
		t.Errorf("got %+v", got.Till)
	}
}

func TestMistakesInsideListsHaveTheirLine(t *testing.T) {
	_, err := loadShop(t, t.TempDir(), `till:
  drawers: 0
  prefix: 10.0.0.0/99
  port: 70000
  clerks:
    - name: bob
      bagde: x
    -
      weekly: all
    - 7
`)
	want := `shop.yaml:3: till.prefix: netip.ParsePrefix("10.0.0.0/99"): prefix length out of range
shop.yaml:4: till.port: "70000" is not allowed; write a whole number from 0 to 65535
shop.yaml:7: till.clerks[0].bagde: unknown key; did you mean "badge"?
shop.yaml:9: till.clerks[1].weekly: "all" is not allowed; write a whole number
shop.yaml:10: till.clerks[2]: "7" stands where a section belongs; keys allowed here: name, badge, badge_file, weekly
shop.yaml:2: till.drawers: 0 is not allowed; use 1 or more`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestACheckInsideAListHasItsLine(t *testing.T) {
	_, err := loadShop(t, t.TempDir(), "till:\n  clerks:\n    - name: bob\n    - weekly: 3\n    - weekly: 4\n      name: ''\n")
	want := "shop.yaml:4: till.clerks[1].name: must not be empty\nshop.yaml:6: till.clerks[2].name: must not be empty"
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestSecretsComeFromFilesThatOthersCannotRead(t *testing.T) {
	dir := t.TempDir()
	secret := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good, open, empty := secret("good", "s3cret\n", 0o640), secret("open", "s3cret\n", 0o644), secret("empty", "\n", 0o600)

	got, err := loadShop(t, dir, "till:\n  pin_file: "+good+"\n  clerks: [{name: a, badge_file: "+good+"}]\n  tls: {key_file: "+good+"}\n")
	if err != nil || got.Till.PIN != "s3cret" || got.Till.Keys[0].Badge != "s3cret" {
		t.Errorf("%+v, %v", got.Till, err)
	}
	dump, _ := yaml.Marshal(shopSchema.node(reflect.ValueOf(got)))
	if strings.Contains(string(dump), "s3cret") || strings.Count(string(dump), hidden) != 2 {
		t.Errorf("dump shows or does not mention the secrets:\n%s", dump)
	}
	for text, want := range map[string]string{
		"pin_file: " + open:                       "shop.yaml:2: till.pin_file: everybody may read or change open; run \"chmod o-rwx open\"",
		"tls: {key_file: " + open + "}":           "shop.yaml:2: till.tls.key_file: everybody may read or change open; run \"chmod o-rwx open\"",
		"clerks: [{name: a, badge_file: /none}]":  "shop.yaml:2: till.clerks[0].badge_file: stat /none: no such file or directory",
		"pin_file: " + empty:                      "shop.yaml:2: till.pin_file: empty is empty; write the secret into it",
		"pin_file: " + dir:                        "shop.yaml:2: till.pin_file: " + dir + " is a directory; name a file",
		"pin: x\n  pin_file: " + good:             "shop.yaml:3: till.pin_file: till.pin is set as well; use one of the two",
		"pin_file: " + filepath.Join(dir, "nono"): "shop.yaml:2: till.pin_file: stat nono: no such file or directory",
	} {
		if _, err := loadShop(t, dir, "till:\n  "+text+"\n"); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "30s": 30 * time.Second, "20m": 20 * time.Minute, "4h": 4 * time.Hour, "5d": 120 * time.Hour,
		"2w": 14 * 24 * time.Hour, "1h30m": 90 * time.Minute, "1.5d": 36 * time.Hour,
	} {
		d, err := parseDuration(text)
		if err != nil || d != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
		if back, err := parseDuration(formatDuration(d)); err != nil || back != d {
			t.Errorf("%s is written %s, which is read as %v, %v", text, formatDuration(d), back, err)
		}
	}
	for _, text := range []string{"", "20", "-1s", "d", "NaNd", "1e300d", "soon", "5 m"} {
		if d, err := parseDuration(text); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}

func TestAStructThatCannotBeWrittenIsTheAuthorsBug(t *testing.T) {
	mustPanic := func(t *testing.T, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Error("accepted")
			}
		}()
		f()
	}
	type unwritable struct {
		C chan int `key:"c"`
	}
	type same struct {
		A struct {
			B int `key:"b"`
		} `key:"a"`
		AB int `key:"a_b"`
	}
	type badDefault struct {
		N int `key:"n" default:"many"`
	}
	mustPanic(t, func() { schemaOf(reflect.TypeFor[unwritable]()) })
	mustPanic(t, func() { schemaOf(reflect.TypeFor[same]()) })
	mustPanic(t, func() {
		schemaOf(reflect.TypeFor[badDefault]()).setDefaults(reflect.New(reflect.TypeFor[badDefault]()).Elem())
	})
}
