package host

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Plain says a failure of the network, of TLS or of DNS in words for an operator:
// no names of system calls, and no addresses, for the caller knows better which of
// them matters. It unwraps to err. Other errors are given back as they are.
func Plain(err error) error {
	words := plainWords(err)
	if err == nil || words == err.Error() {
		return err
	}
	return &plain{words, err}
}

type plain struct {
	words string
	err   error
}

func (e *plain) Error() string { return e.words }
func (e *plain) Unwrap() error { return e.err }

func plainWords(err error) string {
	var (
		dns    *net.DNSError
		record tls.RecordHeaderError
		op     *net.OpError
		errno  syscall.Errno
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &dns):
		return dnsWords(dns)
	case errors.As(err, &record):
		return "the server does not speak TLS"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the other side closed the connection"
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert
		return "the server refuses: " + bare(op.Err)
	case op != nil:
		return bare(op.Err)
	}
	return bare(err)
}

func dnsWords(e *net.DNSError) string {
	switch {
	case e.IsNotFound:
		return "the name or record does not exist in DNS"
	case e.IsTimeout:
		return "DNS gave no answer in time"
	}
	return "DNS: " + e.Err
}

// bare is an error's text without the name of the Go package that it comes from.
func bare(err error) string {
	s := err.Error()
	for _, name := range []string{"tls: ", "x509: "} {
		s = strings.ReplaceAll(s, name, "")
	}
	return s
}
