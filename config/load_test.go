package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

var update = flag.Bool("update", false, "rewrite the golden files and doc/config.md")

// golden compares got with a file, or rewrites it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./config -update", err)
	}
	if got == string(want) {
		return
	}
	has, wants := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	i := 0
	for i < min(len(has), len(wants))-1 && has[i] == wants[i] {
		i++
	}
	t.Errorf("%s differs from line %d on; if the change is meant: go test ./config -update\ngot:  %s\nwant: %s", file, i+1, has[i], wants[i])
}

// memFS is a disk in memory with one file.
type memFS struct{ host.FS }

func fsWith(t *testing.T, name, text string) host.FS {
	t.Helper()
	fs := noWatch{memFS{host.MadeFS(vfs.NewMem())}}
	if err := host.WriteFile(fs, name, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return fs
}

func loadText(t *testing.T, text string) (*Config, error) {
	t.Helper()
	return Load(Options{FS: fsWith(t, "bsmtpd.yaml", text), File: "bsmtpd.yaml"})
}

func TestBadFilesGiveTheirMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 8 {
		t.Fatalf("bad files: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := Load(Options{FS: host.System().FS, File: file})
			if err == nil || c != nil {
				t.Fatalf("%s was accepted", file)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".err", err.Error()+"\n")
		})
	}
}

func TestDefaultsAreAConfigurationThatWorks(t *testing.T) {
	c, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Spool.Settings(), spool.DefaultSettings(); got != want {
		t.Errorf("spool defaults: got %+v, want %+v", got, want)
	}
	if got, want := c.Quota.Limits(), (directory.Limits{Quota: 20 << 20, QuotaFiltered: 1 << 30}); got != want {
		t.Errorf("quota defaults: got %+v, want %+v", got, want)
	}
}

func TestTheLaterPlaceWins(t *testing.T) {
	o := Options{
		FS: fsWith(t, "c.yaml", "spool: {retry: 1m, sweep: 1h, login_window: 3m}\nnode: {name: file}\n"), File: "c.yaml",
		Environ: []string{"PATH=/bin", "BSMTPD_SPOOL_SWEEP=2h", "BSMTPD_SPOOL_LOGIN_WINDOW=4m", "BSMTPD_CONFIG=c.yaml",
			"BSMTPD_NODE_PROVIDER_DOMAINS=one.example, two.example", "BSMTPD_PORT_25_TCP=tcp://10.0.0.1:25"},
		Flags: map[string]string{"spool.login_window": "5m", "quota.default": "30MiB"},
	}
	c, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	want := *Default()
	want.Node.Name = "file"
	want.Spool.Retry, want.Spool.Sweep, want.Spool.LoginWindow = time.Minute, 2*time.Hour, 5*time.Minute
	want.Node.ProviderDomains = []mail.Domain{"one.example", "two.example"}
	want.Quota.Default = 30 << 20
	if got := Dump(c); got != Dump(&want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, Dump(&want))
	}
}

func TestMistakesOutsideTheFileNameTheirPlace(t *testing.T) {
	_, err := Load(Options{
		Environ: []string{"BSMTPD_SPOOL_RETRY=soon", "BSMTPD_SPOOL_RETYR=1m", "BSMTPD_QUOTA_DEFAULT=0"},
		Flags:   map[string]string{"node.nmae": "a", "spol.retry": "1m", "spool.sweep": "1s"},
	})
	want := []string{
		`environment BSMTPD_SPOOL_RETRY: spool.retry: "soon" is not a duration; write for example 30s, 20m, 4h or 5d`,
		`environment BSMTPD_SPOOL_RETYR: sets no key; did you mean BSMTPD_SPOOL_RETRY?`,
		`flag: node.nmae: unknown key; did you mean "name"?`,
		`flag: spol.retry: unknown key; allowed here: `,
		`flag: spool.sweep: 1s is not allowed; use 1m to 7d`,
		`environment BSMTPD_QUOTA_DEFAULT: quota.default: 0B is not allowed; use 1B to 1024TiB`,
	}
	if err == nil {
		t.Fatal("accepted")
	}
	got := strings.Split(err.Error(), "\n")
	ok := slices.EqualFunc(got, want, strings.HasPrefix)
	if !ok {
		t.Errorf("got:\n%s\nwant:\n%s", err, strings.Join(want, "\n"))
	}
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != len(want) {
		t.Errorf("error is %T, want Problems", err)
	}
}

func TestTheDumpIsAFileThatGivesTheSame(t *testing.T) {
	c := Default()
	c.Node.Name = "123" // must stay a text
	c.Node.ProviderDomains = []mail.Domain{"example.net"}
	c.Quota.Default = 20<<20 + 1 // no round unit
	c.Spool.OutLife = 100 * time.Hour
	back, err := loadText(t, Dump(c))
	if err != nil {
		t.Fatalf("%v in\n%s", err, Dump(c))
	}
	if Dump(back) != Dump(c) || back.Quota != c.Quota || back.Spool != c.Spool {
		t.Errorf("got:\n%s\nwant:\n%s", Dump(back), Dump(c))
	}
}

func TestFilesThatHoldNothingAreTheDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "node:\n#  name: a\nspool:\n", "---\n"} {
		c, err := loadText(t, text)
		if err != nil || Dump(c) != Dump(Default()) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAFileThatCannotBeReadIsNamed(t *testing.T) {
	fs := fsWith(t, "big.yaml", strings.Repeat("# filler\n", maxFile/9+2))
	for _, file := range []string{"missing.yaml", "big.yaml"} {
		_, err := Load(Options{FS: fs, File: file})
		if err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestDocsAreUpToDate(t *testing.T) { golden(t, "../doc/config.md", Docs()) }

func TestEveryKeyIsDocumented(t *testing.T) {
	var undocumented func(prefix string, s *schema)
	undocumented = func(prefix string, s *schema) {
		for _, sec := range s.sections {
			if sec.path != "" && sec.doc == "" {
				t.Errorf("section %s%s has no doc tag", prefix, sec.path)
			}
			for _, k := range sec.keys {
				if k.doc == "" {
					t.Errorf("key %s%s has no doc tag", prefix, k.path)
				}
				if k.element != nil {
					undocumented(prefix+k.path+"[].", k.element)
				}
			}
		}
	}
	undocumented("", configSchema)
}

func FuzzFile(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil {
			f.Add(string(b))
		}
	}
	f.Add("a: &a [*a]\nnode: *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := loadText(t, text)
		if (c == nil) == (err == nil) {
			t.Fatalf("configuration %v and error %v", c, err)
		}
		if err != nil && (err.Error() == "" || strings.Contains(err.Error(), "panic") && !strings.Contains(text, "panic")) {
			t.Fatalf("error text %q", err)
		}
	})
}

func TestTheSampleIsAConfigurationThatWorks(t *testing.T) {
	c, err := Load(Options{FS: host.System().FS, File: "../deploy/bsmtpd.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "mx1" || len(c.SMTPD.Listen) != 2 || c.Spool != Default().Spool {
		t.Errorf("read as:\n%s", Dump(c))
	}
}

func TestAnAddressIsListenedOnOnce(t *testing.T) {
	_, err := loadText(t, "smtpd:\n  listen:\n    - 127.0.0.1:2525\n    - 127.0.0.1:0\n    - 127.0.0.1:0\n    - 127.0.0.1:2525\napi:\n  address: 127.0.0.1:2525\n")
	want := `bsmtpd.yaml:6: smtpd.listen[3]: "127.0.0.1:2525" is listened on already; choose another port, or remove one
bsmtpd.yaml:8: api.address: "127.0.0.1:2525" is listened on already; choose another port, or remove one`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
