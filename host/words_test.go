package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
)

func TestFailuresOfTheNetworkAreSaidInPlainWords(t *testing.T) {
	call := func(op, name string, e syscall.Errno) error {
		return &net.OpError{Op: op, Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25}, Err: os.NewSyscallError(name, e)}
	}
	for want, err := range map[string]error{
		"connection refused":                       call("dial", "connect", syscall.ECONNREFUSED),
		"no route to host":                         call("dial", "connect", syscall.EHOSTUNREACH),
		"connection reset by peer":                 call("read", "read", syscall.ECONNRESET),
		"broken pipe":                              call("write", "write", syscall.EPIPE),
		"no answer in time":                        &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded},
		"use of closed network connection":         &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed},
		"the other side closed the connection":     fmt.Errorf("x: %w", io.EOF),
		"the name or record does not exist in DNS": &net.DNSError{Err: "no such host", Name: "a.example", Server: "192.0.2.53:53", IsNotFound: true},
		"DNS gave no answer in time":               &net.DNSError{Err: "i/o timeout", Name: "a.example", Server: "192.0.2.53:53", IsTimeout: true},
		"DNS: server misbehaving":                  &net.DNSError{Err: "server misbehaving", Name: "a.example"},
		"the server does not speak TLS":            tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"},
		"the server refuses: handshake failure":    &net.OpError{Op: "remote error", Err: tls.AlertError(40)},
		"certificate signed by unknown authority":  x509.UnknownAuthorityError{},
		"something else":                           errors.New("something else"),
	} {
		if got := Plain(err); got.Error() != want || !errors.Is(got, err) {
			t.Errorf("%v is said as %q, want %q", err, got, want)
		}
	}
	if Plain(nil) != nil {
		t.Error("no failure became one")
	}
	_, err := System().Net.Dial(context.Background(), "tcp", netip.Addr{}, "127.0.0.1:1") // nobody listens there
	if got := Plain(err); got.Error() != "connection refused" {
		t.Errorf("the system's own refusal is said as %q", got)
	}
}
