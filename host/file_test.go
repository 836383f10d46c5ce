package host

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watched calls back before every change of a disk and after it.
type watched struct {
	vfs.FS
	step func()
}

func (w *watched) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	w.step()
	f, err := w.FS.Create(name, c)
	w.step()
	return &watchedFile{f, w}, err
}

func (w *watched) Rename(from, to string) error {
	w.step()
	defer w.step()
	return w.FS.Rename(from, to)
}

func (w *watched) OpenDir(name string) (vfs.File, error) {
	w.step()
	f, err := w.FS.OpenDir(name)
	return &watchedFile{f, w}, err
}

type watchedFile struct {
	vfs.File
	w *watched
}

func (f *watchedFile) Write(p []byte) (int, error) {
	half := len(p) / 2
	if _, err := f.File.Write(p[:half]); err != nil {
		return 0, err
	}
	f.w.step()
	_, err := f.File.Write(p[half:])
	f.w.step()
	return len(p), err
}

func (f *watchedFile) Sync() error {
	f.w.step()
	defer f.w.step()
	return f.File.Sync()
}

// After a power cut at any moment, whatever of the unsynced the disk kept, the
// file is the old one or the new one; and the new one once WriteFile has returned.
func TestWriteFileIsAtomic(t *testing.T) {
	before, after := bytes.Repeat([]byte("old"), 3000), bytes.Repeat([]byte("newer"), 4000)
	for _, there := range []bool{true, false} {
		cuts, old := 0, 0
		for seed := range uint64(200) {
			disk := vfs.NewCrashableMem()
			if err := errors.Join(disk.MkdirAll("/d", 0o700), SyncDir(disk, "/")); err != nil {
				t.Fatal(err)
			}
			if there {
				if err := WriteFile(disk, "/d/f", before); err != nil {
					t.Fatal(err)
				}
			}
			rng := rand.New(rand.NewPCG(seed, 1))
			var kept []*vfs.MemFS
			cut := func() {
				kept = append(kept, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}))
			}
			if err := WriteFile(&watched{disk, cut}, "/d/f", after); err != nil {
				t.Fatal(err)
			}
			for i, fs1 := range kept {
				cuts++
				got, err := ReadFile(fs1, "/d/f", 1<<20)
				switch {
				case err == nil && bytes.Equal(got, after):
				case there && err == nil && bytes.Equal(got, before), !there && errors.Is(err, fs.ErrNotExist):
					old++
				default:
					t.Fatalf("seed %d, cut %d: %d bytes, %v", seed, i, len(got), err)
				}
			}
			done := disk.CrashClone(vfs.CrashCloneCfg{})
			if got, err := ReadFile(done, "/d/f", 1<<20); err != nil || !bytes.Equal(got, after) {
				t.Fatalf("seed %d: after WriteFile has returned: %d bytes, %v", seed, len(got), err)
			}
		}
		if old == 0 || old == cuts {
			t.Errorf("of %d cuts %d left the old state: the test sees one side only", cuts, old)
		}
	}
}

func TestReadFileIsBounded(t *testing.T) {
	disk := vfs.NewMem()
	if err := WriteFile(disk, "f", []byte("12345")); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(disk, "f", 5); err != nil || string(got) != "12345" {
		t.Errorf("a file of its limit: %q, %v", got, err)
	}
	var limit *LimitError
	if _, err := ReadFile(disk, "f", 4); !errors.As(err, &limit) || limit.Name != "f" {
		t.Errorf("a file above its limit: %v", err)
	}
}
