package client

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"bsmtpd/api/wire"
	"bsmtpd/mail"
)

// Page says which stretch of a list is wanted. The zero Page is all of it.
type Page struct {
	After string // the cursor: what comes after this row
	Limit int    // at most so many rows; 0: all
}

func (p Page) query() url.Values {
	q := url.Values{}
	add(q, "after", p.After)
	if p.Limit > 0 {
		q.Set("limit", strconv.Itoa(p.Limit))
	}
	return q
}

func add(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func esc(s string) string { return url.PathEscape(s) }

// Status tells how the node is.
func (c *Client) Status(ctx context.Context) (wire.Status, error) {
	return call[wire.Status](ctx, c, http.MethodGet, "/status", nil, nil)
}

// Accounts gives the accounts in order of login; the cursor is a login.
func (c *Client) Accounts(ctx context.Context, p Page) iter.Seq2[wire.Account, error] {
	return rows[wire.Account](ctx, c, http.MethodGet, "/accounts", p.query(), nil)
}

// Account gives one account.
func (c *Client) Account(ctx context.Context, login mail.Login) (wire.AccountInfo, error) {
	return call[wire.AccountInfo](ctx, c, http.MethodGet, "/accounts/"+esc(string(login)), nil, nil)
}

// AddAccount adds an account that must not exist yet.
func (c *Client) AddAccount(ctx context.Context, a wire.Account) (wire.Put, error) {
	return call[wire.Put](ctx, c, http.MethodPost, "/accounts", nil, a)
}

// PutAccount adds or replaces an account.
func (c *Client) PutAccount(ctx context.Context, a wire.Account) (wire.Put, error) {
	return call[wire.Put](ctx, c, http.MethodPut, "/accounts/"+esc(string(a.Login)), nil, a)
}

// SetAccount changes what the patch gives.
func (c *Client) SetAccount(ctx context.Context, login mail.Login, p wire.AccountPatch) (wire.Put, error) {
	return call[wire.Put](ctx, c, http.MethodPatch, "/accounts/"+esc(string(login)), nil, p)
}

// RemoveAccount removes an account that has neither domains nor mail.
func (c *Client) RemoveAccount(ctx context.Context, login mail.Login) error {
	_, err := call[wire.Empty](ctx, c, http.MethodDelete, "/accounts/"+esc(string(login)), nil, nil)
	return err
}

// Explain tells why an account's mail does not arrive. dns and probe say whether
// to ask DNS and the customer's server.
func (c *Client) Explain(ctx context.Context, login mail.Login, dns, probe bool) (wire.Explain, error) {
	q := url.Values{"dns": {strconv.FormatBool(dns)}, "probe": {strconv.FormatBool(probe)}}
	return call[wire.Explain](ctx, c, http.MethodGet, "/accounts/"+esc(string(login))+"/explain", q, nil)
}

// ImportAccounts adds or replaces accounts with their domains from a file in the
// format csv or jsonl. name stands for the file in the texts of errors.
func (c *Client) ImportAccounts(ctx context.Context, file io.Reader, format, name string, dryRun bool, told func(wire.Progress)) (wire.Progress, error) {
	q := url.Values{"format": {format}}
	add(q, "name", name)
	if dryRun {
		q.Set("dry_run", "true")
	}
	return work(ctx, c, "/import/accounts", q, file, told)
}

// ExportAccounts writes all accounts with their domains to w.
func (c *Client) ExportAccounts(ctx context.Context, w io.Writer, format string) error {
	return c.copy(ctx, w, "/export/accounts", url.Values{"format": {format}})
}

func (c *Client) copy(ctx context.Context, w io.Writer, path string, q url.Values) error {
	resp, err := c.send(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return &mail.Error{Kind: mail.Unavailable, Err: err}
	}
	return nil
}

// Domains gives the domains in order of name, of one account if login is given;
// the cursor is a name.
func (c *Client) Domains(ctx context.Context, login mail.Login, p Page) iter.Seq2[wire.Domain, error] {
	q := p.query()
	add(q, "account", string(login))
	return rows[wire.Domain](ctx, c, http.MethodGet, "/domains", q, nil)
}

// Domain gives one domain.
func (c *Client) Domain(ctx context.Context, name mail.Domain) (wire.Domain, error) {
	return call[wire.Domain](ctx, c, http.MethodGet, "/domains/"+esc(string(name)), nil, nil)
}

// AddDomain adds a domain that must not exist yet.
func (c *Client) AddDomain(ctx context.Context, d wire.Domain) (wire.Put, error) {
	return call[wire.Put](ctx, c, http.MethodPost, "/domains", nil, d)
}

// PutDomain adds or replaces a domain.
func (c *Client) PutDomain(ctx context.Context, d wire.Domain) (wire.Put, error) {
	return call[wire.Put](ctx, c, http.MethodPut, "/domains/"+esc(string(d.Name)), nil, d)
}

// SetDomain changes what the patch gives.
func (c *Client) SetDomain(ctx context.Context, name mail.Domain, p wire.DomainPatch) (wire.Put, error) {
	return call[wire.Put](ctx, c, http.MethodPatch, "/domains/"+esc(string(name)), nil, p)
}

// RemoveDomain removes a domain; its queued mail stays with the account.
func (c *Client) RemoveDomain(ctx context.Context, name mail.Domain) error {
	_, err := call[wire.Empty](ctx, c, http.MethodDelete, "/domains/"+esc(string(name)), nil, nil)
	return err
}

// CheckDomain tells whether a domain's mail comes here and where it goes.
func (c *Client) CheckDomain(ctx context.Context, name mail.Domain) (wire.DomainCheck, error) {
	return call[wire.DomainCheck](ctx, c, http.MethodGet, "/domains/"+esc(string(name))+"/check", nil, nil)
}

// Queues gives the queues in order of name; the cursor is a name. ages: count
// messages by age. empty: also queues without mail.
func (c *Client) Queues(ctx context.Context, ages, empty bool, p Page) iter.Seq2[wire.QueueSummary, error] {
	q := p.query()
	q.Set("ages", strconv.FormatBool(ages))
	q.Set("empty", strconv.FormatBool(empty))
	return rows[wire.QueueSummary](ctx, c, http.MethodGet, "/queues", q, nil)
}

// Queue gives one queue, by its name: "account/jansen".
func (c *Client) Queue(ctx context.Context, name string) (wire.QueueSummary, error) {
	return call[wire.QueueSummary](ctx, c, http.MethodGet, queuePath(name), nil, nil)
}

func queuePath(name string) string {
	for i := range len(name) {
		if name[i] == '/' {
			return "/queues/" + esc(name[:i]) + "/" + esc(name[i+1:])
		}
	}
	return "/queues/account/" + esc(name)
}

// HoldQueue holds a whole queue, mail still to come included.
func (c *Client) HoldQueue(ctx context.Context, name string, h wire.QueueHold) error {
	_, err := call[wire.Empty](ctx, c, http.MethodPost, queuePath(name)+"/hold", nil, h)
	return err
}

// ReleaseQueue ends the hold of a whole queue.
func (c *Client) ReleaseQueue(ctx context.Context, name string) error {
	_, err := call[wire.Empty](ctx, c, http.MethodPost, queuePath(name)+"/release", nil, nil)
	return err
}

// RetryQueue makes a queue due now.
func (c *Client) RetryQueue(ctx context.Context, name string) (wire.Triggered, error) {
	return call[wire.Triggered](ctx, c, http.MethodPost, queuePath(name)+"/retry", nil, nil)
}

// RetryQueues makes queues due now: those named, or all that have mail.
func (c *Client) RetryQueues(ctx context.Context, r wire.QueueRetry, told func(wire.Progress)) (wire.Progress, error) {
	return work(ctx, c, "/queues/retry", nil, r, told)
}

// Messages gives the messages that match; the cursor is QUEUE:QUEUE_ID.
func (c *Client) Messages(ctx context.Context, f wire.Filter, p Page) iter.Seq2[wire.QueueRow, error] {
	return decoded(c, c.MessageLines(ctx, f, p), decodeRow)
}

// MessageLines is Messages for who passes them on: each row is the JSON that the
// node wrote, only good until the next.
func (c *Client) MessageLines(ctx context.Context, f wire.Filter, p Page) iter.Seq2[[]byte, error] {
	q := p.query()
	add(q, "account", string(f.Account))
	add(q, "queue", f.Queue)
	add(q, "domain", f.Domain)
	add(q, "sender", f.Sender)
	add(q, "recipient", f.Recipient)
	add(q, "min_age", f.MinAge)
	add(q, "max_age", f.MaxAge)
	add(q, "state", f.State)
	if f.MinSize > 0 {
		q.Set("min_size", strconv.FormatInt(f.MinSize, 10))
	}
	if f.MaxSize > 0 {
		q.Set("max_size", strconv.FormatInt(f.MaxSize, 10))
	}
	return lines(ctx, c, http.MethodGet, "/messages", q, nil)
}

// Message gives all that is known of one message.
func (c *Client) Message(ctx context.Context, id string) (wire.Message, error) {
	return call[wire.Message](ctx, c, http.MethodGet, "/messages/"+esc(id), nil, nil)
}

// Body writes a message's text, or its headers alone, to w.
func (c *Client) Body(ctx context.Context, w io.Writer, id string, headers bool) error {
	q := url.Values{}
	if headers {
		q.Set("headers", "true")
	}
	return c.copy(ctx, w, "/messages/"+esc(id)+"/body", q)
}

// Act does an action to messages. At most wire.MaxIDs can be named in one call.
func (c *Client) Act(ctx context.Context, a wire.Action, told func(wire.Progress)) (wire.Progress, error) {
	return work(ctx, c, "/messages/actions", nil, a, told)
}

// Suspensions tells where delivery is suspended.
func (c *Client) Suspensions(ctx context.Context) ([]wire.Suspension, error) {
	return call[[]wire.Suspension](ctx, c, http.MethodGet, "/delivery/suspensions", nil, nil)
}

// Suspend suspends delivery.
func (c *Client) Suspend(ctx context.Context, s wire.Suspension) error {
	_, err := call[wire.Empty](ctx, c, http.MethodPost, "/delivery/suspensions", nil, s)
	return err
}

// Resume ends a suspension.
func (c *Client) Resume(ctx context.Context, scope string) error {
	_, err := call[wire.Empty](ctx, c, http.MethodDelete, "/delivery/suspensions", url.Values{"scope": {scope}}, nil)
	return err
}

// Sources tells from which addresses mail is pushed.
func (c *Client) Sources(ctx context.Context) (wire.Sources, error) {
	return call[wire.Sources](ctx, c, http.MethodGet, "/delivery/sources", nil, nil)
}

// SendLogin tells a login event.
func (c *Client) SendLogin(ctx context.Context, e wire.LoginEvent) (wire.LoginResult, error) {
	return call[wire.LoginResult](ctx, c, http.MethodPost, "/logins", nil, e)
}

// Logins gives who is or was online; the cursor is a login.
func (c *Client) Logins(ctx context.Context, online, double bool, p Page) iter.Seq2[wire.Presence, error] {
	q := p.query()
	q.Set("online", strconv.FormatBool(online))
	q.Set("double", strconv.FormatBool(double))
	return rows[wire.Presence](ctx, c, http.MethodGet, "/logins", q, nil)
}

// Login gives one login's sessions.
func (c *Client) Login(ctx context.Context, login mail.Login) (wire.Presence, error) {
	return call[wire.Presence](ctx, c, http.MethodGet, "/logins/"+esc(string(login)), nil, nil)
}

// AuditFilter chooses audit records. Fields that are given must all match.
type AuditFilter struct {
	Oldest bool // the oldest first; else the newest
	Object string
	By     string
	Action string // how it begins
}

// Audit gives who changed what; the cursor is a record's number.
func (c *Client) Audit(ctx context.Context, f AuditFilter, p Page) iter.Seq2[wire.AuditRecord, error] {
	q := p.query()
	if f.Oldest {
		q.Set("order", "oldest")
	}
	add(q, "object", f.Object)
	add(q, "by", f.By)
	add(q, "action", f.Action)
	return rows[wire.AuditRecord](ctx, c, http.MethodGet, "/audit", q, nil)
}
