package host

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// System is the real machine.
func System() Host {
	return Host{
		Net:  systemNet{},
		DNS:  systemDNS{net.DefaultResolver},
		FS:   systemFS{vfs.Default},
		Name: systemName,
		OpenFiles: func() uint64 {
			var r unix.Rlimit
			if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
				return 0
			}
			return r.Cur
		},
		Rand: func(string) *rand.Rand { return rand.New(strong{}) },
	}
}

func systemName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

type strong struct{}

// Uint64 draws from the operating system; crypto/rand.Read never fails.
func (strong) Uint64() uint64 {
	var b [8]byte
	crand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

type systemNet struct{}

var _ Net = systemNet{}

func (systemNet) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

func (systemNet) ListenPacket(network, address string) (net.PacketConn, error) {
	return net.ListenPacket(network, address)
}

func (systemNet) Dial(ctx context.Context, network string, local netip.Addr, address string) (net.Conn, error) {
	var d net.Dialer
	if local.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: local.AsSlice(), Zone: local.Zone()}
	}
	return d.DialContext(ctx, network, address)
}

type systemDNS struct{ r *net.Resolver }

var _ DNS = systemDNS{}

func (s systemDNS) MX(ctx context.Context, domain string) ([]*net.MX, error) {
	return s.r.LookupMX(ctx, domain)
}

func (s systemDNS) Addrs(ctx context.Context, name string) ([]netip.Addr, error) {
	return s.r.LookupNetIP(ctx, "ip", name)
}

func (s systemDNS) TXT(ctx context.Context, name string) ([]string, error) {
	return s.r.LookupTXT(ctx, name)
}

func (s systemDNS) Names(ctx context.Context, addr netip.Addr) ([]string, error) {
	return s.r.LookupAddr(ctx, addr.String())
}

type systemFS struct{ vfs.FS }

var _ FS = systemFS{}

func (systemFS) InodesFree(path string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Ffree, st.Files, nil
}

// OpenPlain looks at what it has opened: the name may mean something else by then.
func (systemFS) OpenPlain(name string) (io.ReadCloser, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link, a socket
		return nil, ErrNotPlain
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, cmp.Or(err, ErrNotPlain)
	}
	return f, nil
}

func (systemFS) Chmod(name string, mode uint32) error { return os.Chmod(name, os.FileMode(mode)) }

func (systemFS) Watch(dir string) (<-chan struct{}, io.Closer, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, nil, err
	}
	if err := w.Add(dir); err != nil {
		w.Close()
		return nil, nil, err
	}
	changed := make(chan struct{}, 1)
	go func() {
		defer close(changed)
		for {
			select {
			case _, ok := <-w.Events:
				if !ok {
					return
				}
			case _, ok := <-w.Errors: // an overflow: something has changed
				if !ok {
					return
				}
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, w, nil
}
