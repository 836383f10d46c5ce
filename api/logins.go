package api

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
)

func (s *Server) registerLogins(a huma.API) {
	const tag = "logins"
	register(a, call("POST", "/logins", tag, "send-login", "Tell that a customer came online or went offline", ScopeLogin), s.sendLogin)
	register(a, call("GET", "/logins", tag, "list-logins", "Who is or was online, as JSON lines of Presence", ScopeRead), s.listLogins)
	register(a, call("GET", "/logins/{login}", tag, "get-login", "One login's sessions", ScopeRead), s.getLogin)
}

var eventKinds = map[string]directory.EventKind{"": directory.EventStart, "start": directory.EventStart, "stop": directory.EventStop, "interim": directory.EventInterim}

var doubleNames = map[directory.Double]string{directory.DoubleSession: "session", directory.DoubleAddress: "address"}

func (s *Server) sendLogin(ctx context.Context, in *struct{ Body wire.LoginEvent }) (*body[wire.LoginResult], error) {
	login, err := loginOf(string(in.Body.Login))
	if err != nil {
		return nil, err
	}
	ev := directory.Event{Kind: eventKinds[in.Body.Event], Login: login, NAS: in.Body.NAS, Session: in.Body.Session, Source: "http"}
	if callerOf(ctx).Socket {
		ev.Source = "cli"
	}
	if in.Body.Address != "" {
		if ev.Address, err = netip.ParseAddr(in.Body.Address); err != nil {
			return nil, mail.Fail(mail.Invalid, fmt.Sprintf("address: %q is not an IP address", in.Body.Address))
		}
		ev.Address = ev.Address.Unmap()
	}
	seen, err := s.deps.Node.Login(ctx, ev)
	if err != nil {
		s.metrics.logins.WithLabelValues(ev.Source, "failed").Inc()
		return nil, err
	}
	s.metrics.logins.WithLabelValues(ev.Source, seen.Outcome()).Inc()
	level, double := slog.LevelInfo, doubleNames[seen.Double]
	if double != "" {
		level = slog.LevelWarn
		s.metrics.doubles.WithLabelValues(double).Inc()
	}
	s.log.Log(ctx, level, "login", "event", cmp.Or(in.Body.Event, "start"), "outcome", seen.Outcome(), "login", login, "source", ev.Source,
		"from", callerOf(ctx).Name, "address", in.Body.Address, "queued", seen.Queued, "double", double)
	// An unknown login is no error of the caller: an access server that got one
	// would send the event again for ever, and later events would wait behind it.
	return &body[wire.LoginResult]{wire.LoginResult{
		Login: login, Unknown: seen.Unknown, Online: seen.Online, Duplicate: seen.Duplicate, Triggered: seen.Triggers && !seen.Debounced && seen.Queued > 0,
		Debounced: seen.Debounced, Double: double, Queued: seen.Queued,
	}}, nil
}

func presenceOut(p *directory.Presence) wire.Presence {
	_, missed := p.Missed()
	out := wire.Presence{Login: p.Login, Missed: missed, Online: p.Online, Since: p.Since.Std(), Last: p.LastEvent.Std(), Sessions: []wire.Session{},
		Doubles: p.Doubles, Double: p.LastDoubleWhat, DoubleAt: p.LastDouble.Std()}
	for _, se := range p.Sessions {
		w := wire.Session{NAS: se.NAS, Session: se.ID, Since: se.Started.Std(), Last: se.Heard.Std(), Stopped: se.Stopped.Std(), Online: se.Live(), Missed: se.Missed}
		if se.Address.IsValid() {
			w.Address = se.Address.String()
		}
		out.Sessions = append(out.Sessions, w)
	}
	return out
}

// sessions is what directory.Reader needs to know which sessions are too old.
func (s *Server) sessions() (now mail.Time, life time.Duration) {
	_, limits := s.deps.Node.Settings()
	return mail.At(s.now()), limits.SessionLife
}

func (s *Server) listLogins(_ context.Context, in *struct {
	Page
	Online bool `query:"online" doc:"only who is online"`
	Double bool `query:"double" doc:"only logins of which a double login was seen"`
}) (*huma.StreamResponse, error) {
	dir := s.deps.Node.Directory()
	now, life := s.sessions()
	seq := func(errp *error) iter.Seq[directory.Presence] {
		all := pages(pageRows, func(last *directory.Presence, err *error) iter.Seq[directory.Presence] {
			if last == nil {
				return dir.Presences(mail.Login(in.After), now, life, err)
			}
			return dir.Presences(last.Login, now, life, err)
		}, errp)
		return func(yield func(directory.Presence) bool) {
			for p := range all {
				if in.Online && !p.Online || in.Double && p.Doubles == 0 {
					continue
				}
				if !yield(p) {
					return
				}
			}
		}
	}
	return list(s, seq, in.Limit, func(p directory.Presence) any { return presenceOut(&p) }), nil
}

func (s *Server) getLogin(_ context.Context, in *LoginPath) (*body[wire.Presence], error) {
	login, err := loginOf(in.Login)
	if err != nil {
		return nil, err
	}
	now, life := s.sessions()
	p, err := s.deps.Node.Directory().Presence(login, now, life)
	if err == nil && p.LastEvent == 0 {
		err = mail.Fail(mail.NotFound, fmt.Sprintf("no login event of %s is known", login))
	}
	if err != nil {
		return nil, err
	}
	return &body[wire.Presence]{presenceOut(&p)}, nil
}
