package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"bsmtpd/api/client"
	"bsmtpd/host"
	"bsmtpd/mail"
)

const (
	maxTokenBytes = 4096
	maxCABytes    = 4 << 20
)

// client finds out where the server is; nothing is connected yet.
func (a *app) client() (*client.Client, error) {
	server := a.serverURL()
	if server == "" {
		return client.Socket(a.host.Net, filepath.Join(a.dataDir(), socketName)), nil
	}
	token, err := a.token()
	if err != nil {
		return nil, err
	}
	sec := client.Security{PlainToken: a.plainToken}
	if a.caFile != "" {
		if sec.CA, err = host.ReadFile(a.host.FS, a.caFile, maxCABytes); err != nil {
			return nil, fmt.Errorf("read the certificates to trust: %w", err)
		}
	}
	cl, err := client.SecureURL(a.host.Net, server, token, sec)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return cl, nil
}

func (a *app) dataDir() string {
	return cmp.Or(a.data, a.getenv(envData), a.getenv(envDataDir), "data")
}

func (a *app) serverURL() string {
	switch {
	case a.server != "":
		return a.server
	case a.data != "": // said on the command line, so it wins over the environment
		return ""
	}
	return a.getenv(envServer)
}

// token reads the bearer token. It is never an argument: everybody on the
// machine can see those.
func (a *app) token() (string, error) {
	if a.tokenFile == "" {
		return a.getenv(envToken), nil
	}
	b, err := host.ReadFile(a.host.FS, a.tokenFile, maxTokenBytes)
	var large *host.LimitError
	switch {
	case errors.As(err, &large):
		return "", fmt.Errorf("token file %s is larger than %d bytes; it must hold a token and nothing else", a.tokenFile, large.Limit)
	case err != nil:
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// hint is what to do about an error of the connection, on lines of its own.
func (a *app) hint(err error) string {
	server := a.serverURL()
	var dial *net.OpError
	failed := mail.KindOf(err) == mail.Unavailable && errors.As(err, &dial)
	switch {
	case server == "" && failed && errors.Is(err, os.ErrPermission):
		return fmt.Sprintf("\nthe socket in %s is for root and the server's own user; use sudo", a.dataDir())
	case server == "" && failed:
		return fmt.Sprintf("\nstart it with \"bsmtpd serve --data %[1]s\", or say where it is: --data DIR (now %[1]s) or --server URL",
			a.dataDir())
	case server != "" && failed:
		return fmt.Sprintf("\ncan %s be reached from here?", server)
	case server != "" && mail.KindOf(err) == mail.Denied && a.tokenFile == "" && a.getenv(envToken) == "":
		return "\nname a file with a token: --token-file FILE, or put the token into $" + envToken
	}
	return ""
}

// quiet errors are those of a reader that went away ("bsmtpd queue list | head").
func quiet(err error) bool { return errors.Is(err, syscall.EPIPE) }
