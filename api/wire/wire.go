// Package wire holds the requests and answers of the HTTP API as both its sides
// see them. Sizes are bytes, times RFC 3339 unless a field says otherwise.
package wire

import (
	"time"

	"bsmtpd/mail"
)

// Prefix begins the path of every call.
const Prefix = "/api/v1"

// JSONLines is the media type of streams: one JSON value per line.
const JSONLines = "application/x-ndjson"

// Bounds of what one call takes and gives.
const (
	MaxIDs            = 10_000 // messages or queues named in one action
	MaxProgressErrors = 100    // texts in one line of Progress
)

// Problem is the answer to a call that failed (RFC 9457), and the last line of a
// stream that did.
type Problem struct {
	Title  string   `json:"title,omitempty"`
	Status int      `json:"status"`           // HTTP
	Kind   string   `json:"kind"`             // name of a mail.Kind: "not-found"
	Detail string   `json:"detail,omitempty"` // what is wrong and what to do
	Errors []string `json:"errors,omitempty"` // one text for each wrong field
}

// Ending is the last line of a stream that failed half-way; all lines before it
// are whole.
type Ending struct {
	Problem *Problem `json:"problem"`
}

// Progress says how far an import or a bulk action is.
type Progress struct {
	Seen    int64    `json:"seen"`             // records read, or messages that match
	Done    int64    `json:"done"`             // of those: written or acted on
	Created int64    `json:"created"`          // imports: of Done, those that were new
	Missing int64    `json:"missing"`          // actions: not there any more
	Failed  int64    `json:"failed"`           // of Seen
	Errors  []string `json:"errors,omitempty"` // texts that are new since the line before, at most 100
	DryRun  bool     `json:"dry_run,omitempty"`
	Final   bool     `json:"final,omitempty"` // the work has ended
}

// Empty is the answer that says only that it is done.
type Empty struct{}

// Hold says that something is not to be tried.
type Hold struct {
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"` // zero: until somebody lifts it
}

// Verdict is what a check found.
type Verdict string

// The verdicts, from good to bad. Skipped: it was not asked for or cannot be said.
const (
	Skipped Verdict = "skip"
	OK      Verdict = "ok"
	Warn    Verdict = "warn"
	Bad     Verdict = "bad"
)

// Check is one question and its answer.
type Check struct {
	Name    string  `json:"name"` // "mx", "port25"
	Verdict Verdict `json:"verdict" enum:"skip,ok,warn,bad"`
	Found   string  `json:"found"`            // what was seen
	Advice  string  `json:"advice,omitempty"` // what to do about it
}

// Worse is the worse of two verdicts.
func Worse(a, b Verdict) Verdict {
	if rank(b) > rank(a) {
		return b
	}
	return a
}

func rank(v Verdict) int {
	for i, w := range []Verdict{Skipped, OK, Warn, Bad} {
		if v == w {
			return i
		}
	}
	return 0
}

// statuses are the HTTP statuses of the kinds of failure.
var statuses = map[mail.Kind]int{
	mail.Other: 500, mail.Invalid: 422, mail.NotFound: 404, mail.Exists: 409, mail.Conflict: 409, mail.OverQuota: 507,
	mail.Limit: 429, mail.Unavailable: 503, mail.LowSpace: 507, mail.Denied: 403, mail.Broken: 500,
}

// StatusOf is the HTTP status of a kind of failure.
func StatusOf(k mail.Kind) int { return statuses[k] }

// KindOf is the kind of failure that an HTTP status stands for, where the answer
// names none.
func KindOf(status int) mail.Kind {
	switch status {
	case 401, 403:
		return mail.Denied
	case 404:
		return mail.NotFound
	case 409, 412:
		return mail.Conflict
	case 413, 429, 431:
		return mail.Limit
	case 502, 503, 504:
		return mail.Unavailable
	case 507:
		return mail.LowSpace
	}
	if status >= 400 && status < 500 {
		return mail.Invalid
	}
	return mail.Other
}
