// Package host is everything outside the process: the network, DNS, the file
// system and chance. A Host is a value handed down from node; production has
// System, a simulation makes up its own world.
//
// Time is not here: doers use package time, which testing/synctest fakes, and
// deciders take the time as an argument.
package host

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Host is one machine as its programs see it.
type Host struct {
	Net Net
	DNS DNS
	FS  FS

	// Name is the host's full name; "localhost" where it is not known.
	Name func() string

	// OpenFiles is how many files and connections this process may have open.
	// nil: nobody knows.
	OpenFiles func() uint64

	// Rand gives each named part of the program its own stream of chance, so
	// that one part drawing more does not change another. In production the
	// stream is cryptographically strong.
	Rand func(name string) *rand.Rand
}

// Net opens sockets. Networks and addresses are as in package net.
type Net interface {
	Listen(network, address string) (net.Listener, error)
	ListenPacket(network, address string) (net.PacketConn, error)

	// Dial connects. local is the source address, or the zero Addr for any.
	Dial(ctx context.Context, network string, local netip.Addr, address string) (net.Conn, error)
}

// DNS answers look-ups. A name that does not exist, or has no record of the
// type, is an error for which IsNotFound holds; every other error is temporary.
type DNS interface {
	// MX gives the records in order of preference, equal preferences shuffled.
	MX(ctx context.Context, domain string) ([]*net.MX, error)
	// Addrs gives the A and AAAA records.
	Addrs(ctx context.Context, name string) ([]netip.Addr, error)
	TXT(ctx context.Context, name string) ([]string, error)
	// Names gives the PTR records.
	Names(ctx context.Context, addr netip.Addr) ([]string, error)
}

// IsNotFound reports whether a DNS error says that the name or record is
// certainly not there.
func IsNotFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// FS is the file system: pebble's interface, and what else the product needs.
type FS interface {
	vfs.FS

	// InodesFree gives the free inodes of path's file system and their number.
	// total 0: the file system does not count them.
	InodesFree(path string) (free, total uint64, err error)

	// Watch sends a value some time after anything in dir has changed. A hint:
	// changes can be merged or missed, so look at the directory from time to
	// time as well. Close ends it.
	Watch(dir string) (changed <-chan struct{}, stop io.Closer, err error)

	// OpenPlain opens a regular file in a directory where strangers may put
	// things: not a link, wherever it points, and nothing that would block, such
	// as a pipe. For those the error is ErrNotPlain.
	OpenPlain(name string) (io.ReadCloser, error)

	// Chmod sets the permission bits of a file, where the system has them.
	Chmod(name string, mode uint32) error
}

// ErrNotPlain is OpenPlain's answer to what is no regular file.
var ErrNotPlain = errors.New("not a regular file")

// ReadFile reads a whole file of at most limit bytes.
func ReadFile(fs vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	return readAll(f, name, limit)
}

// ReadPlain is ReadFile for a directory where strangers may put things.
func ReadPlain(fs FS, name string, limit int64) ([]byte, error) {
	f, err := fs.OpenPlain(name)
	if err != nil {
		return nil, err
	}
	return readAll(f, name, limit)
}

func readAll(f io.ReadCloser, name string, limit int64) ([]byte, error) {
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, &LimitError{Name: name, Limit: limit}
	}
	return b, nil
}

// WriteFile replaces a file so that after a crash the old or the new content is
// there, never a part: temporary file, fsync, rename, fsync of the directory.
func WriteFile(fs vfs.FS, name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte(nil), data...))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.Rename(tmp, name)
	}
	if err != nil {
		return err
	}
	return SyncDir(fs, fs.PathDir(name))
}

// SyncDir makes the names in dir durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// LimitError says that a file is larger than its reader takes.
type LimitError struct {
	Name  string
	Limit int64
}

func (e *LimitError) Error() string { return "file " + e.Name + " is larger than allowed" }

// Sleep waits for d or until ctx ends, and then returns ctx's error.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
