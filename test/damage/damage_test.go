package damage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bsmtpd/kv"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var logins = []string{"jansen", "devries"}

// filled is a data directory after a kill: of its letters, all acknowledged, some
// are in the files of the state database and the rest only in the log.
type filled struct {
	dir     string
	letters []letter
	flushed int64 // length of the log when everything in it was in the database
}

var fillOnce sync.Once
var full filled

// fill makes the directory, once for all tests.
func fill(t *testing.T) *filled {
	t.Helper()
	fillOnce.Do(func() {
		full.dir = filepath.Join(scratch, "full")
		s, ok := launch(t, full.dir)
		if !ok {
			t.Fatalf("the server does not start:\n%s", s.log)
		}
		for _, login := range logins {
			s.cli("account", "add", login, "--route", "127.0.0.1:1")
			s.cli("domain", "add", login+".example", "--account", login)
		}
		more := func(n int) {
			var now []letter
			for range n {
				k := len(full.letters) + len(now)
				now = append(now, letter{logins[k%2], k, []int{300, 4_000, 20_000, 500_000}[k%4]})
			}
			s.send(now...)
			full.letters = append(full.letters, now...)
		}
		more(60)
		s.stop()
		full.flushed = int64(len(written(t, full.dir)))
		if s, ok = launch(t, full.dir); !ok {
			t.Fatalf("the server does not start again:\n%s", s.log)
		}
		more(30)
		s.kill()
		remove(t, filepath.Join(full.dir, "admin.sock")) // cannot be copied
	})
	if len(full.letters) != 90 {
		t.Fatal("the directory could not be filled")
	}
	return &full
}

// newest is the segment of the log that is written to.
func newest(t testing.TB, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "log", "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatal("no segment of the log", err)
	}
	return names[len(names)-1]
}

// written is the content of that segment up to the last byte that is not zero.
func written(t testing.TB, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(newest(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimRight(b, "\x00")
}

// files are those in a folder whose names contain a word, largest first.
func largest(t testing.TB, dir, word string) string {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "*"+word+"*"))
	var best string
	var size int64 = -1
	for _, n := range names {
		if info, err := os.Stat(n); err == nil && info.Size() > size {
			best, size = n, info.Size()
		}
	}
	if best == "" {
		t.Fatalf("no file *%s* in %s", word, dir)
	}
	return best
}

func edit(t testing.TB, name string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, change(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flip(at int64) func(b []byte) []byte {
	return func(b []byte) []byte { b[at] ^= 0x20; return b }
}

func remove(t testing.TB, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// setRow writes garbage over the first row of a prefix.
func setRow(t testing.TB, dir, prefix string) {
	t.Helper()
	db, err := kv.Open(filepath.Join(dir, "state"), kv.Options{FS: vfs.Default, MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var key []byte
	for k := range db.Scan([]byte(prefix), kv.PrefixEnd([]byte(prefix)), &err) {
		key = bytes.Clone(k)
		break
	}
	if key == nil || err != nil {
		t.Fatalf("no row %s: %v", prefix, err)
	}
	b := db.Begin()
	b.Set(key, []byte{0xff, 0xee})
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
}

// What a server does on a damaged directory.
const (
	starts  = "starts with everything"
	knowing = "starts, and verify says what cannot be read"
	refuses = "refuses to start"
)

type damageCase struct {
	name, does string
	damage     func(t testing.TB, f *filled, dir string)
}

func cases() []damageCase {
	state := func(word string, change func(b []byte) []byte) func(testing.TB, *filled, string) {
		return func(t testing.TB, _ *filled, dir string) {
			name := largest(t, filepath.Join(dir, "state"), word)
			if change == nil {
				remove(t, name)
			} else {
				edit(t, name, change)
			}
		}
	}
	gone := func(name string) func(testing.TB, *filled, string) {
		return func(t testing.TB, _ *filled, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	middle := func(b []byte) []byte { b[len(b)/2] ^= 4; return b }
	out := []damageCase{
		{"nothing", starts, func(testing.TB, *filled, string) {}},
		{"a write behind the end that was never completed", starts, func(t testing.TB, _ *filled, dir string) {
			used := written(t, dir)
			edit(t, newest(t, dir), func(b []byte) []byte { return append(b[:len(used)], used[32:5000]...) })
		}},
		{"a flipped byte in a part of the log that is in the database", starts, func(t testing.TB, f *filled, dir string) {
			edit(t, newest(t, dir), flip(f.flushed/2))
		}},
		{"a flipped byte in a part of the log that is not", refuses, func(t testing.TB, f *filled, dir string) {
			edit(t, newest(t, dir), flip((f.flushed+int64(len(written(t, dir))))/2))
		}},
		{"a flipped byte in the last batch", refuses, func(t testing.TB, f *filled, dir string) {
			edit(t, newest(t, dir), flip(int64(len(written(t, dir))-100)))
		}},
		{"the newest segment is lost", refuses, func(t testing.TB, _ *filled, dir string) { remove(t, newest(t, dir)) }},
		{"the log's meta file is lost", refuses, gone("log/meta")},
		{"the log's meta file is damaged", refuses, func(t testing.TB, _ *filled, dir string) { edit(t, filepath.Join(dir, "log/meta"), middle) }},
		{"the mark is lost", knowing, gone("log/synced")},
		{"the folder log is lost", refuses, gone("log")},
		{"the folder state is lost", refuses, gone("state")},
		{"the snapshots are lost", refuses, gone("snapshots")},
		{"a snapshot is damaged", refuses, func(t testing.TB, _ *filled, dir string) {
			edit(t, largest(t, filepath.Join(dir, "snapshots"), ".json"), half)
		}},
		{"an sst is lost", refuses, state(".sst", nil)},
		{"an sst is cut", refuses, state(".sst", half)},
		{"a file of large values is lost", refuses, state(".blob", nil)},
		{"a file of large values is cut", refuses, state(".blob", half)},
		{"the manifest is lost", refuses, state("MANIFEST-", nil)},
		{"the manifest is cut", refuses, state("MANIFEST-", half)},
		{"the manifest is empty", refuses, state("MANIFEST-", func([]byte) []byte { return nil })},
		{"the manifest has a flipped byte", refuses, state("MANIFEST-", middle)},
		{"the marker of the manifest is lost", refuses, state("marker.manifest", nil)},
		{"the marker of the format is lost", refuses, state("marker.format-version", nil)},
		{"the OPTIONS are lost", starts, state("OPTIONS-", nil)},
		{"a flipped byte in the block with the machine's row", refuses, state(".sst", flip(200))},
		{"a flipped byte in a block of rows", knowing, state(".sst", flip(6000))},
		{"a flipped byte in a large value", knowing, state(".blob", flip(300))},
		{"a message's row is garbage", knowing, func(t testing.TB, _ *filled, dir string) { setRow(t, dir, "m/") }},
		{"a queue's row is garbage", knowing, func(t testing.TB, _ *filled, dir string) { setRow(t, dir, "q/") }},
		{"an account's row is garbage", knowing, func(t testing.TB, _ *filled, dir string) { setRow(t, dir, "A/") }},
		{"the machine's row is garbage", refuses, func(t testing.TB, _ *filled, dir string) { setRow(t, dir, "0/applied") }},
		{"the directory is empty", refuses, func(t testing.TB, _ *filled, dir string) {
			os.RemoveAll(dir)
			os.Mkdir(dir, 0o700)
		}},
		{"the identity is lost", refuses, gone("identity.json")},
		{"the identity is damaged", refuses, func(t testing.TB, _ *filled, dir string) { edit(t, filepath.Join(dir, "identity.json"), half) }},
		{"another node's identity", refuses, func(t testing.TB, _ *filled, dir string) {
			edit(t, filepath.Join(dir, "identity.json"), func(b []byte) []byte { return bytes.Replace(b, []byte("node1"), []byte("node2"), 1) })
		}},
	}
	for _, tenths := range []int64{0, 3, 6, 9} {
		for how, change := range map[string]func(b []byte, at int64) []byte{
			"cut":    func(b []byte, at int64) []byte { return b[:at] },
			"zeroed": func(b []byte, at int64) []byte { clear(b[at:]); return b },
		} {
			out = append(out, damageCase{fmt.Sprintf("the newest segment is %s at %d tenths of what is only there", how, tenths), refuses,
				func(t testing.TB, f *filled, dir string) {
					end := int64(len(written(t, dir)))
					edit(t, newest(t, dir), func(b []byte) []byte { return change(b, f.flushed+(end-f.flushed)*tenths/10) })
				}})
		}
	}
	for _, before := range []int64{1, 4, 9, 60} {
		out = append(out, damageCase{fmt.Sprintf("the newest segment lacks its last %d bytes", before), refuses,
			func(t testing.TB, f *filled, dir string) {
				end := int64(len(written(t, dir)))
				edit(t, newest(t, dir), func(b []byte) []byte { return b[:end-before] })
			}})
	}
	return out
}

// TestADamagedDirectoryNeverSilentlyLacksMail goes through all of them.
func TestADamagedDirectoryNeverSilentlyLacksMail(t *testing.T) {
	f := fill(t)
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(dir, os.DirFS(f.dir)); err != nil {
				t.Fatal(err)
			}
			os.Chmod(dir, 0o700)
			c.damage(t, f, dir)
			before := content(t, dir)
			said := verify(t, dir)
			if changed := before.differs(content(t, dir)); changed != "" {
				t.Errorf("verify has changed %s", changed)
			}
			s, ready := launch(t, dir)
			want := map[string]int{starts: 0, knowing: 1, refuses: 2}[c.does]
			if said.code != want && !(c.does == starts && said.code == 1) {
				t.Errorf("verify: %s", said)
			}
			if ready != (c.does != refuses) {
				t.Errorf("ready: %v; it should: %s\n%s\nverify: %s", ready, c.does, s.log, said)
			}
			if !ready {
				if log := s.log.String(); strings.Contains(log, "goroutine ") || strings.Contains(log, "panic:") {
					t.Errorf("no clear text:\n%s", log)
				}
				if changed := before.differs(content(t, dir)); changed != "" {
					t.Errorf("a start that was refused has changed %s", changed)
				}
				t.Logf("%s", s.log)
				return
			}
			missing, changed := s.lacks(f.letters)
			// A change that needs a row in the bad block ends the server, in clear words.
			if warns := s.warns(); strings.Contains(c.name, "flipped byte in a block of rows") && len(warns) == 0 && !strings.Contains(s.log.String(), "is damaged") {
				t.Errorf("nobody says that a file is damaged:\n%s", s.log)
			}
			if len(changed) > 0 {
				t.Errorf("changed: %q", changed)
			}
			if len(missing) > 0 && c.does != knowing {
				t.Errorf("%d acknowledged messages are missing, and verify says: %s", len(missing), said)
			}
			t.Logf("started; %d of %d missing; verify: %s", len(missing), len(f.letters), said)
		})
	}
}

// contents are the files of a directory that hold mail or say where it is.
type contents map[string]string

func content(t testing.TB, dir string) contents {
	t.Helper()
	out := contents{}
	for _, sub := range []string{".", "log", "state", "snapshots"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.Type().IsRegular() && e.Name() != "LOCK" {
				b, err := os.ReadFile(filepath.Join(dir, sub, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				out[sub+"/"+e.Name()] = string(b)
			}
		}
	}
	return out
}

// differs names a file that is not as it was.
func (c contents) differs(now contents) string {
	for name, was := range c {
		if is, ok := now[name]; !ok {
			return name + " (it is gone)"
		} else if is != was {
			return name
		}
	}
	return ""
}
