package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"bsmtpd/host"
	"bsmtpd/mail"
)

// Scope is what a caller may do.
type Scope string

// The scopes. Admin may do all that Read and Login may.
const (
	ScopeAdmin Scope = "admin"
	ScopeRead  Scope = "read"  // look at everything but the text of mail
	ScopeLogin Scope = "login" // tell login events
)

func (s Scope) allows(need Scope) bool { return s == ScopeAdmin || s == need }

// Caller is who makes a call.
type Caller struct {
	Name   string // for the audit: "root@admin.sock", "token:portal"
	Scope  Scope
	Socket bool
}

type callerKey struct{}

func callerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Bounds of the token file.
const (
	maxTokenFileBytes = 1 << 20
	maxTokens         = 1000
	tokenBytes        = 32
)

type token struct {
	name   string
	scope  Scope
	digest [sha256.Size]byte
}

type tokenSet struct{ tokens []token }

// find looks at every token in the same time, whichever matches: what can be
// measured from outside says nothing about the digests.
func (t *tokenSet) find(secret string) (token, bool) {
	digest := sha256.Sum256([]byte(secret))
	at := -1
	for i := range t.tokens {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(digest[:], t.tokens[i].digest[:]), i, at)
	}
	if at < 0 {
		return token{}, false
	}
	return t.tokens[at], true
}

// parseTokens reads lines "name scope sha256hex"; # begins a comment.
func parseTokens(data []byte) ([]token, error) {
	var out []token
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("line %d: want 'name scope sha256hex', found %d words", n, len(f))
		}
		t := token{name: f[0], scope: Scope(f[1])}
		switch t.scope {
		case ScopeAdmin, ScopeRead, ScopeLogin:
		default:
			return nil, fmt.Errorf("line %d: scope %q is unknown; use admin, read or login", n, f[1])
		}
		// The words are not repeated in the error: a token may stand there by mistake.
		if k, err := hex.Decode(t.digest[:], []byte(f[2])); len(f[2]) != 2*sha256.Size || err != nil || k != sha256.Size {
			return nil, fmt.Errorf("line %d: the third word is not a SHA-256 in 64 hexadecimal digits", n)
		}
		if out = append(out, t); len(out) > maxTokens {
			return nil, fmt.Errorf("line %d: more than %d tokens", n, maxTokens)
		}
	}
	return out, lines.Err()
}

func (s *Server) loadTokens(cfg Config) (*tokenSet, error) {
	set := &tokenSet{}
	path := s.deps.Host.FS.PathJoin(s.deps.DataDir, TokenName)
	own, err := host.ReadFile(s.deps.Host.FS, path, 4096)
	switch {
	case err == nil:
		if secret := strings.TrimSpace(string(own)); secret != "" {
			set.tokens = append(set.tokens, token{TokenName, ScopeAdmin, sha256.Sum256([]byte(secret))})
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the API token: %w", err)
	}
	if cfg.TokenFile == "" {
		return set, nil
	}
	data, err := host.ReadFile(s.deps.Host.FS, cfg.TokenFile, maxTokenFileBytes)
	if err != nil {
		return nil, fmt.Errorf("read the token file (setting api.token_file): %w", err)
	}
	more, err := parseTokens(data)
	if err != nil {
		return nil, fmt.Errorf("token file %s: %w", cfg.TokenFile, err)
	}
	set.tokens = append(set.tokens, more...)
	return set, nil
}

// ensureToken makes DATA/api-token at the first start. Nobody else may read it at
// any time, so its mode is set while it is still empty.
func (s *Server) ensureToken() error {
	files := s.deps.Host.FS
	path := files.PathJoin(s.deps.DataDir, TokenName)
	if _, err := files.Stat(path); err == nil {
		return nil
	}
	rnd := s.deps.Host.Rand("api-token")
	secret := make([]byte, tokenBytes)
	for i := range secret {
		secret[i] = byte(rnd.Uint64())
	}
	tmp := path + ".tmp"
	f, err := files.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make the API token: %w", err)
	}
	err = files.Chmod(tmp, 0o600)
	if err == nil {
		_, err = f.Write([]byte(hex.EncodeToString(secret) + "\n"))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = files.Rename(tmp, path)
	}
	if err == nil {
		err = host.SyncDir(files, s.deps.DataDir)
	}
	if err != nil {
		return fmt.Errorf("make the API token: %w", err)
	}
	return nil
}

// bearer lets callers in who show a token.
func (s *Server) bearer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(kind, "Bearer") || secret == "" {
			s.unauthorized(w, "no-token", "send a token: Authorization: Bearer TOKEN")
			return
		}
		t, ok := s.tokens.Load().find(strings.TrimSpace(secret))
		if !ok {
			s.unauthorized(w, "wrong-token", "the token is not known here")
			return
		}
		c := Caller{Name: "token:" + t.name, Scope: t.scope}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

func (s *Server) unauthorized(w http.ResponseWriter, reason, text string) {
	s.metrics.refused.WithLabelValues(reason).Inc()
	w.Header().Set("WWW-Authenticate", `Bearer realm="bsmtpd"`)
	writeProblem(w, http.StatusUnauthorized, mail.Denied, text)
}

// socketCaller gives callers on the admin socket full rights: its file mode has
// let them in.
func socketCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := SocketName
		if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			if user := peerName(c); user != "" {
				name = user + "@" + SocketName
			}
		}
		c := Caller{Name: name, Scope: ScopeAdmin, Socket: true}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}
