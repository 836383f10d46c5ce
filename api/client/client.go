// Package client speaks to a node's HTTP API, over its admin socket or a URL. All
// errors are *mail.Error: Unavailable where no node answers, else the kind that
// the node told.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"bsmtpd/api/wire"
	"bsmtpd/host"
	"bsmtpd/mail"
)

// Bounds of what is read from a server.
const (
	maxAnswerBytes  = 64 << 20
	maxProblemBytes = 1 << 20
	maxLineBytes    = 16 << 20
)

// Client calls one node. It is safe for use by many goroutines.
type Client struct {
	base  string // "http://admin"
	what  string // the server, for errors
	token string
	http  *http.Client
}

// Socket calls the node whose admin socket stands at path.
func Socket(n host.Net, path string) *Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return n.Dial(ctx, "unix", netip.Addr{}, path)
	}}
	return &Client{base: "http://admin", what: path, http: &http.Client{Transport: tr}}
}

// Security is how a node is reached over a network.
type Security struct {
	CA         []byte // certificates in PEM that are trusted; nil: those of the system
	PlainToken bool   // a token may go over plain HTTP to another machine
}

// URL calls the node at an http or https URL with a bearer token.
func URL(n host.Net, server, token string) (*Client, error) {
	return SecureURL(n, server, token, Security{})
}

// SecureURL is URL with a say in what is secure.
func SecureURL(n host.Net, server, token string, sec Security) (*Client, error) {
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, mail.Fail(mail.Invalid, fmt.Sprintf("%q is not a server; write for example http://127.0.0.1:8025", server))
	}
	if token != "" && u.Scheme == "http" && !sec.PlainToken && !isLoopback(u.Hostname()) {
		return nil, mail.Fail(mail.Invalid, fmt.Sprintf("everybody on the way to %s could read the token; write https://%s, or --plain-token if that is meant", u.Host, u.Host))
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return n.Dial(ctx, network, netip.Addr{}, addr)
	}, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if sec.CA != nil {
		tr.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !tr.TLSClientConfig.RootCAs.AppendCertsFromPEM(sec.CA) {
			return nil, mail.Fail(mail.Invalid, "there is no certificate in PEM among those to trust")
		}
	}
	return &Client{base: u.Scheme + "://" + u.Host, what: u.Host, token: token, http: &http.Client{Transport: tr,
		// A token must not follow a redirection to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

func isLoopback(name string) bool {
	ip, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && ip.IsLoopback()
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// send makes a call; the caller closes the answer's body. in is a value for JSON,
// an io.Reader as it is, or nil.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, in any) (*http.Response, error) {
	var body io.Reader
	contentType := ""
	switch v := in.(type) {
	case nil:
	case io.Reader:
		body, contentType = v, "application/octet-stream"
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return nil, &mail.Error{Kind: mail.Invalid, Err: err}
		}
		body, contentType = bytes.NewReader(b), "application/json"
	}
	target := c.base + wire.Prefix + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, &mail.Error{Kind: mail.Invalid, Err: err}
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, failureOf(resp)
	}
	return resp, nil
}

func (c *Client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &mail.Error{Kind: mail.Unavailable, Err: fmt.Errorf("no node answers at %s: %w", c.what, err)}
}

// failureOf is the error that an answer tells.
func failureOf(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblemBytes))
	var p wire.Problem
	if json.Unmarshal(b, &p) != nil || p.Detail == "" {
		return mail.Fail(wire.KindOf(resp.StatusCode), fmt.Sprintf("the server answered %s: %.200s", resp.Status, strings.TrimSpace(string(b))))
	}
	if p.Kind == "" {
		p.Kind = wire.KindOf(resp.StatusCode).String()
	}
	return errorOf(&p)
}

func errorOf(p *wire.Problem) error { return mail.Fail(mail.ParseKind(p.Kind), p.Detail) }

// call makes a call whose answer is one JSON value, or none.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any) (T, error) {
	var out T
	resp, err := c.send(ctx, method, path, query, in)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes)).Decode(&out); err != nil && !errors.Is(err, io.EOF) {
		return out, &mail.Error{Kind: mail.Unavailable, Err: fmt.Errorf("the answer of %s broke off or is not JSON: %w", c.what, err)}
	}
	return out, nil
}

// rows makes a call whose answer is JSON lines. An error ends the sequence.
func rows[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any) iter.Seq2[T, error] {
	return decoded(c, lines(ctx, c, method, path, query, in), func(line []byte, v *T) error {
		var zero T
		*v = zero
		return json.Unmarshal(line, v)
	})
}

// decoded reads the values of lines. decode finds in v what it made of the line
// before.
func decoded[T any](c *Client, seq iter.Seq2[[]byte, error], decode func(line []byte, v *T) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var v, zero T
		for line, err := range seq {
			if err == nil {
				if derr := decode(line, &v); derr != nil {
					err = &mail.Error{Kind: mail.Other, Err: fmt.Errorf("%s answers what is not understood: %w; is it another version?", c.what, derr)}
				}
			}
			if err != nil {
				yield(zero, err)
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// lines makes a call and gives the lines of its answer, each only good until the
// next. An error ends the sequence.
func lines(ctx context.Context, c *Client, method, path string, query url.Values, in any) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		resp, err := c.send(ctx, method, path, query, in)
		if err != nil {
			yield(nil, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(make([]byte, 0, 64<<10), maxLineBytes)
		for lines.Scan() {
			var end wire.Ending
			if bytes.HasPrefix(lines.Bytes(), []byte(`{"problem":`)) && json.Unmarshal(lines.Bytes(), &end) == nil && end.Problem != nil {
				yield(nil, errorOf(end.Problem))
				return
			}
			if !yield(lines.Bytes(), nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(nil, &mail.Error{Kind: mail.Unavailable, Err: fmt.Errorf("the answer of %s broke off: %w", c.what, err)})
		}
	}
}

// work makes a call that tells its progress. It gives each line to told, which
// may be nil, and returns the last one.
func work(ctx context.Context, c *Client, path string, query url.Values, in any, told func(wire.Progress)) (wire.Progress, error) {
	var last wire.Progress
	for p, err := range rows[wire.Progress](ctx, c, http.MethodPost, path, query, in) {
		if err != nil {
			return last, err
		}
		if last = p; told != nil {
			told(p)
		}
	}
	if !last.Final {
		return last, mail.Fail(mail.Unavailable, fmt.Sprintf("the answer of %s broke off after %d of %d; the rest may not have been done", c.what, last.Done, last.Seen))
	}
	return last, nil
}
