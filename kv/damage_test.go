package kv

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fill makes a database of one file of rows and one of large values.
func fill(t *testing.T) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	s, err := Open("db", Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	b := s.Begin()
	for i := range 2000 {
		b.Set(fmt.Appendf(nil, "small/%04d", i), bytes.Repeat([]byte{'s'}, 100))
	}
	for i := range 50 {
		b.Set(fmt.Appendf(nil, "large/%04d", i), bytes.Repeat([]byte{'l'}, 20_000))
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

// only is the one file with a suffix.
func only(t *testing.T, fs vfs.FS, suffix string) string {
	t.Helper()
	names, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, suffix) {
			return path.Join("db", n)
		}
	}
	t.Fatalf("no file *%s in %v", suffix, names)
	return ""
}

func flip(t *testing.T, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// A bad block costs the rows in it and not the process; nobody takes a row that
// cannot be read for one that is not there.
func TestADamagedFileIsToldAndTheRestIsRead(t *testing.T) {
	for _, c := range []struct {
		name, good string
		damage     func(fs vfs.FS)
	}{
		{"a bad block of rows", "small/1999", func(fs vfs.FS) { flip(t, fs, only(t, fs, ".sst"), 20_000) }},
		{"a bad block of large values", "large/0049", func(fs vfs.FS) { flip(t, fs, only(t, fs, ".blob"), 100) }},
		{"a file of large values without its end", "small/1999", func(fs vfs.FS) {
			name := only(t, fs, ".blob")
			info, _ := fs.Stat(name)
			flip(t, fs, name, info.Size()-2)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := fill(t)
			c.damage(fs)
			heard := 0
			s, err := Open("db", Options{FS: fs, MustExist: true, Damaged: func(*Damage) { heard++ }})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			bad, first := 0, ""
			for _, kind := range []struct {
				name string
				n    int
			}{{"small", 2000}, {"large", 50}} {
				for i := range kind.n {
					v, err := s.Get(fmt.Appendf(nil, "%s/%04d", kind.name, i))
					switch {
					case IsDamage(err):
						if bad++; bad == 1 {
							first = fmt.Sprintf("%s/%04d", kind.name, i)
						}
					case err != nil:
						t.Fatalf("%s/%04d: %v", kind.name, i, err)
					case v == nil:
						t.Fatalf("%s/%04d is said not to be there", kind.name, i)
					}
				}
			}
			if bad == 0 || bad == 2050 {
				t.Errorf("%d rows of 2050 cannot be read", bad)
			}
			if v, err := s.Get([]byte(c.good)); err != nil || v == nil {
				t.Errorf("row %s: %v", c.good, err)
			}
			var serr error
			n := 0
			for range s.Scan([]byte("a"), []byte("z"), &serr) {
				n++
			}
			if !IsDamage(serr) || n >= 2050 {
				t.Errorf("a scan gives %d rows and %v", n, serr)
			}
			if _, _, err := s.Last([]byte("a"), []byte(first+"\x00")); !IsDamage(err) {
				t.Errorf("the last row up to a bad one: %v", err)
			}
			if heard == 0 {
				t.Error("nobody was told")
			}
		})
	}
}

func TestALostFileIsSeenWhenTheDatabaseIsOpened(t *testing.T) {
	for _, suffix := range []string{".sst", ".blob"} {
		for name, change := range map[string]func(fs vfs.FS, name string) error{
			"lost": func(fs vfs.FS, name string) error { return fs.Remove(name) },
			"shortened": func(fs vfs.FS, name string) error {
				f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
				if err != nil {
					return err
				}
				f.Write([]byte("short"))
				return f.Close()
			},
		} {
			t.Run(name+" "+suffix, func(t *testing.T) {
				fs := fill(t)
				file := only(t, fs, suffix)
				if err := change(fs, file); err != nil {
					t.Fatal(err)
				}
				s, err := Open("db", Options{FS: fs, MustExist: true, ReadOnly: true})
				if err == nil {
					s.Close()
					t.Fatal("it opened")
				}
				if !strings.Contains(err.Error(), strings.TrimSuffix(path.Base(file), suffix)) {
					t.Errorf("error %q does not name %s", err, file)
				}
			})
		}
	}
}
