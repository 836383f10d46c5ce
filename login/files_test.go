package login

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/metric"
)

const dir = "/data/logins/"

// drop puts a file into the watched directory as a careful script does.
func (w *world) drop(name, content string) {
	w.t.Helper()
	f, err := w.fs.Create("/data/"+"part", vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write([]byte(content))
	}
	if err == nil {
		err = errors.Join(f.Close(), w.fs.Rename("/data/part", dir+name))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// look waits until the directory was looked at.
func (w *world) look() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

func (w *world) list(where string) []string {
	w.t.Helper()
	names, err := w.fs.List(where)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func (w *world) heardAs() (out []string) {
	for _, e := range w.book.heard() {
		s := kindNames[e.Kind] + " " + string(e.Login)
		if e.Address.IsValid() {
			s += " " + e.Address.String()
		}
		out = append(out, s)
	}
	return out
}

func TestADroppedFileIsToldAndRemoved(t *testing.T) {
	inWorld(t, func(w *world) {
		w.drop("2.login", "stop pietersen\n")
		w.drop("1.login", "# from the modem pool\r\n\r\nstart Jansen@example.net 192.0.2.10\r\n\tSTART\tpietersen\r\nstop jansen")
		w.drop("readme.txt", "start nobody\n")
		w.drop(".hidden.login", "start nobody\n")
		w.look()
		want := []string{"start jansen 192.0.2.10", "start pietersen", "stop jansen", "stop pietersen"}
		if got := w.heardAs(); !slices.Equal(got, want) {
			t.Errorf("heard %q, want %q", got, want)
		}
		if got := w.list(dir); !slices.Equal(got, []string{".hidden.login", "bad", "readme.txt"}) {
			t.Errorf("left: %q", got)
		}
		if e := w.book.heard()[0]; e.Source != "file" || e.NAS != "" || e.Address != netip.MustParseAddr("192.0.2.10") {
			t.Errorf("event %+v", e)
		}
		if !strings.Contains(w.log.String(), "from=1.login:3") || w.count("login_files_total", "done") != 2 {
			t.Errorf("log: %s", w.log)
		}
	})
}

func TestABadFileIsSetAsideWhole(t *testing.T) {
	bad := map[string]struct{ content, reason string }{
		"word.login":                        {"start jansen\nbegin pietersen\n", `line 2: not an event`},
		"address.login":                     {"start jansen here\n", `line 1: "here" is not an IP address`},
		"name.login":                        {"start jan/sen\n", `line 1: login "jan/sen"`},
		"more.login":                        {"start jansen 192.0.2.10 now\n", "line 1:"},
		"binary.login":                      {"start jansen\nstop \x00\n", "line 2: not plain text"},
		"wide.login":                        {strings.Repeat("#", maxLineBytes+1) + "\n", "line 1: longer than 1024 bytes"},
		"lines.login":                       {strings.Repeat("#\n", maxFileLines+1), "line 4097: a file has at most 4096 lines"},
		"large.login":                       {strings.Repeat("# \n", maxFileBytes), "larger than 65536 bytes"},
		strings.Repeat("n", 210) + ".login": {"start jansen\n", "the name is longer than 200 bytes"},
	}
	inWorld(t, func(w *world) {
		for name, b := range bad {
			w.drop(name, b.content)
		}
		if err := w.fs.MkdirAll(dir+"folder.login", 0o755); err != nil {
			t.Fatal(err)
		}
		w.drop("zz.login", "start jansen\n")
		w.look()
		for name, b := range bad {
			reason, err := host.ReadFile(w.fs, dir+"bad/"+keptName(name)+".reason", 1<<16)
			if err != nil || !strings.Contains(string(reason), b.reason) {
				t.Errorf("%s: %q %v, want %q", name, reason, err, b.reason)
			}
			kept, err := host.ReadFile(w.fs, dir+"bad/"+keptName(name), 1<<20)
			if err != nil || string(kept) != b.content {
				t.Errorf("%s: kept %d bytes %v", name, len(kept), err)
			}
		}
		if got := w.heardAs(); !slices.Equal(got, []string{"start jansen"}) {
			t.Errorf("heard %q", got)
		}
		if got := w.list(dir); !slices.Equal(got, []string{"bad"}) {
			t.Errorf("left: %q", got)
		}
	})
}

// Whoever may write into the directory must not learn by that what the server can
// read and he cannot: a link is not followed, and of a misplaced secret nothing is
// repeated.
func TestALinkIsNotFollowedAndASecretIsNotRepeated(t *testing.T) {
	const secret = "5f1d0a77c0ffee"
	system, data := host.System(), t.TempDir()
	cfg := testConfig()
	cfg.Radius.Listen = ""
	w := newWorld(t, cfg)
	w.server = New(cfg, system, data, w.book, w.server.log, metric.New())
	if err := w.server.Listen(); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(data, "logins", name) }
	if err := errors.Join(
		os.WriteFile(filepath.Join(data, "api-token"), []byte("start "+secret+"\n"), 0o600),
		os.Symlink(filepath.Join(data, "api-token"), in("link.login")),
		syscall.Mkfifo(in("pipe.login"), 0o644),
		os.WriteFile(in("secret.login"), []byte("start jansen\n"+secret+"\n"), 0o644),
		os.WriteFile(in("words.login"), []byte("token "+secret+"\n"), 0o644),
		os.WriteFile(in("zz.login"), []byte("start jansen\n"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	w.server.readFiles(t.Context(), &progress{})
	if got := w.heardAs(); !slices.Equal(got, []string{"start jansen"}) {
		t.Errorf("heard %q", got)
	}
	for name, want := range map[string]string{
		"link.login": "not a regular file", "pipe.login": "not a regular file", "secret.login": "line 2: not an event", "words.login": "line 1: not an event",
	} {
		reason, err := os.ReadFile(in("bad/" + name + ".reason"))
		if err != nil || !strings.Contains(string(reason), want) || strings.Contains(string(reason), secret) {
			t.Errorf("%s: %q %v, want %q and no secret", name, reason, err, want)
		}
	}
	if strings.Contains(w.log.String(), secret) {
		t.Errorf("the log has the secret: %s", w.log)
	}
}

func TestAnOpenDirectoryIsWarnedOf(t *testing.T) {
	system, data := host.System(), t.TempDir()
	cfg := testConfig()
	cfg.Radius.Listen = ""
	w := newWorld(t, cfg)
	w.server = New(cfg, system, data, w.book, w.server.log, metric.New())
	for _, open := range []bool{false, true} {
		if open {
			if err := os.Chmod(filepath.Join(data, "logins"), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.server.Listen(); err != nil {
			t.Fatal(err)
		}
		if warned := strings.Contains(w.log.String(), "everybody"); warned != open {
			t.Errorf("open %v, warned %v", open, warned)
		}
	}
}

func TestAFileWaitsUntilItIsCommittedAndKeepsItsPlace(t *testing.T) {
	inWorld(t, func(w *world) {
		w.book.answer = func(n int, e directory.Event) (directory.Seen, error) {
			if n == 2 || n == 3 {
				return directory.Seen{}, errLeader
			}
			return directory.Seen{Login: e.Login, Triggers: true}, nil
		}
		w.drop("1.login", "start a\nstart b\nstart c\n")
		w.drop("2.login", "start d\n")
		w.look()
		if got := w.list(dir); len(got) != 3 {
			t.Fatalf("left: %q", got)
		}
		w.look()
		w.look()
		want := []string{"start a", "start b", "start b", "start b", "start c", "start d"}
		if got := w.heardAs(); !slices.Equal(got, want) {
			t.Errorf("heard %q, want %q", got, want)
		}
		if got := w.list(dir); len(got) != 1 {
			t.Errorf("left: %q", got)
		}
	})
}

func TestTheOldestBadFilesGo(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range maxBad + 20 {
			w.drop(fmt.Sprintf("%04d.login", i), "nonsense\n")
		}
		w.look()
		got := w.list(dir + "bad")
		if len(got) != 2*maxBad || got[0] != "0020.login" {
			t.Errorf("%d kept, from %s", len(got), got[0])
		}
	})
}

func TestRealDirectoriesAreWatched(t *testing.T) {
	system, data := host.System(), t.TempDir()
	cfg := testConfig()
	cfg.Radius.Listen = ""
	cfg.Files.Rescan = time.Hour
	w := newWorld(t, cfg)
	w.server = New(cfg, system, data, w.book, w.server.log, metric.New())
	if err := w.server.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.server.Run(ctx) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	if err := host.WriteFile(system.FS, data+"/logins/1.login", []byte("start jansen\n")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(10 * time.Second); len(w.book.heard()) == 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the file was never read")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("start jansen 192.0.2.10\nstop jansen\n# end\r\n"))
	f.Add([]byte("start jansen 2001:db8::1%eth0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := parseFile(data, true)
		for _, e := range events {
			if e.event.Login == "" || err != nil {
				t.Fatalf("%+v %v", e, err)
			}
		}
	})
}
