package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

func (s *Server) registerActions(a huma.API) {
	register(a, call("POST", "/messages/actions", "messages", "act-on-messages",
		"Hold, release, retry, bounce, remove or requeue messages, by ID or by filter; answers with JSON lines of Progress", ScopeAdmin), s.act)
}

var actions = map[string]spool.Action{"hold": spool.ActHold, "release": spool.ActRelease, "retry": spool.ActRetry,
	"bounce": spool.ActBounce, "remove": spool.ActRemove, "requeue": spool.ActRequeue}

func (s *Server) act(ctx context.Context, in *struct{ Body wire.Action }) (*huma.StreamResponse, error) {
	req := &in.Body
	w := &worker{s: s, ctx: ctx, cmd: spool.Act{Action: actions[req.Action], By: callerOf(ctx).Name, Reason: req.Reason}, dry: req.DryRun}
	if (len(req.IDs) > 0) == (req.Filter != nil || req.All) {
		return nil, mail.Fail(mail.Invalid, "give ids, or a filter, or all; exactly one of them")
	}
	if len(req.IDs) > 0 {
		ids, err := parseIDs(req.IDs)
		if err != nil {
			return nil, err
		}
		return s.progress(func(p *reporter) error {
			w.reporter = p
			return w.byIDs(ids)
		}), nil
	}
	m, err := actionFilter(req, s.now())
	if err != nil {
		return nil, err
	}
	w.cmd.Filter = filterText(req.Filter)
	return s.progress(func(p *reporter) error {
		w.reporter = p
		return w.byFilter(m)
	}), nil
}

func parseIDs(list []string) ([]mail.ID, error) {
	seen := make(map[mail.ID]bool, len(list))
	var out []mail.ID
	for _, text := range list {
		id, err := mail.ParseID(text)
		if err != nil {
			return nil, invalid(err)
		}
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out, nil
}

// actionFilter is the filter of an action. An empty one is every message there
// is, which somebody must have meant.
func actionFilter(req *wire.Action, now time.Time) (*matcher, error) {
	f := wire.Filter{}
	if req.Filter != nil {
		f = *req.Filter
	}
	requeue := req.Action == spool.ActRequeue.String()
	if requeue && f.State == "" {
		f.State = wire.StateTrash
	}
	if requeue != (f.State == wire.StateTrash) {
		return nil, mail.Fail(mail.Invalid, "requeue is for removed mail (state trash), and every other action for mail that is not")
	}
	empty := f
	empty.State = ""
	if empty == (wire.Filter{}) && !req.All {
		return nil, mail.Fail(mail.Invalid, "the filter is empty: that is every message of every account; set all to true if that is meant")
	}
	m, err := newMatcher(&f, now)
	if err != nil {
		return nil, err
	}
	// Notifications of this very action, and mail that comes meanwhile, are not
	// what was counted and meant.
	m.arrived = mail.At(now)
	return m, nil
}

// maxFilterText bounds what the audit keeps of a filter.
const maxFilterText = 500

// filterText is a filter for the audit: "sender=@spam.example min_age=2h".
func filterText(f *wire.Filter) string {
	if f == nil || *f == (wire.Filter{}) {
		return "ALL"
	}
	var words []string
	add := func(name, value string) {
		if value != "" && value != "0" {
			words = append(words, name+"="+value)
		}
	}
	add("account", string(f.Account))
	add("queue", f.Queue)
	add("domain", f.Domain)
	add("sender", f.Sender)
	add("recipient", f.Recipient)
	add("min_age", f.MinAge)
	add("max_age", f.MaxAge)
	add("min_size", strconv.FormatInt(f.MinSize, 10))
	add("max_size", strconv.FormatInt(f.MaxSize, 10))
	add("state", f.State)
	text := strings.Join(words, " ")
	return strings.ToValidUTF8(text[:min(len(text), maxFilterText)], "")
}

// worker does one action in batches.
type worker struct {
	*reporter
	s   *Server
	ctx context.Context
	cmd spool.Act // without its items
	dry bool
}

func (w *worker) byIDs(ids []mail.ID) error {
	w.DryRun = w.dry
	var items []spool.Item
	for _, id := range ids {
		rows, err := w.s.byID(id, w.s.deps.Node.Now())
		if err != nil {
			return err
		}
		n := len(items)
		for _, h := range rows {
			if (h.removed != nil) == (w.cmd.Action == spool.ActRequeue) {
				items = append(items, h.item())
			}
		}
		if len(items) == n {
			w.Seen++
			w.Missing++
		}
		for len(items) >= spool.MaxItems {
			if err := w.do(items[:spool.MaxItems]); err != nil {
				return err
			}
			items = items[spool.MaxItems:]
		}
	}
	return w.do(items)
}

func (w *worker) byFilter(m *matcher) error {
	w.DryRun = w.dry
	var err error
	items := make([]spool.Item, 0, spool.MaxItems)
	for h := range w.s.find(m, cursor{}, &err) {
		if items = append(items, h.item()); len(items) == spool.MaxItems {
			if derr := w.do(items); derr != nil {
				return derr
			}
			items = make([]spool.Item, 0, spool.MaxItems)
		}
	}
	if err != nil && mail.KindOf(err) != mail.Broken {
		return err
	}
	if derr := w.do(items); derr != nil {
		return derr
	}
	return err
}

// do acts on at most MaxItems messages. The node waits for those that may be on the
// wire; what is busy after that is told as failed, and the work goes on.
func (w *worker) do(items []spool.Item) error {
	if len(items) == 0 {
		return w.tell()
	}
	w.Seen += int64(len(items))
	if w.dry {
		w.Done += int64(len(items))
		return w.tell()
	}
	cmd := w.cmd
	cmd.Items = items
	out, err := w.s.deps.Node.Act(w.ctx, cmd)
	w.count(items, out)
	if err != nil && len(out.Busy) == 0 {
		return &mail.Error{Kind: mail.KindOf(err), Err: fmt.Errorf("stopped after %d messages: %w", w.Done, err)}
	}
	for _, it := range out.Busy {
		w.fail(fmt.Sprintf("%s: a session is pushing queue %s and may be sending it; try again", it.ID, it.Queue))
	}
	return w.tell()
}

// count adds one answer, and writes the mail log where it is certain what
// happened to each message.
func (w *worker) count(items []spool.Item, out spool.Acted) {
	w.Done += int64(out.Done)
	w.Missing += int64(out.Missing)
	for _, text := range out.Refused {
		w.fail(text)
	}
	if out.Done+len(out.Busy) != len(items) {
		if out.Done == 0 {
			return
		}
		w.s.log.Info("operated on messages", "action", w.cmd.Action.String(), "by", w.cmd.By, "reason", w.cmd.Reason,
			"done", out.Done, "missing", out.Missing, "refused", len(out.Refused))
		return
	}
	busy := make(map[spool.Item]bool, len(out.Busy))
	for _, it := range out.Busy {
		busy[it] = true
	}
	for _, it := range items {
		if !busy[it] {
			w.s.deps.MailLog.Operated(it.ID, string(it.Queue), w.cmd.Action.String(), w.cmd.By, w.cmd.Reason)
		}
	}
}
