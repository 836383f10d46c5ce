package api

import (
	"time"

	"github.com/danielgtaylor/huma/v2"

	"bsmtpd/api/wire"
)

// tellEvery is how often a caller hears how far the work is.
const tellEvery = 200 * time.Millisecond

// reporter tells a caller how far the work is.
type reporter struct {
	wire.Progress
	emit  func(any) error
	flush func()
	told  time.Time
}

// progress answers with JSON lines of Progress; the last has Final, unless the
// work failed.
func (s *Server) progress(f func(p *reporter) error) *huma.StreamResponse {
	return s.streamFlush(func(emit func(any) error, flush func()) error {
		p := &reporter{emit: emit, flush: flush, told: time.Now()}
		if err := f(p); err != nil {
			if len(p.Errors) > 0 || p.Seen > 0 {
				p.send()
			}
			return err
		}
		p.Final = true
		return p.send()
	})
}

// fail counts one that could not be done.
func (p *reporter) fail(text string) {
	p.Failed++
	if len(p.Errors) < wire.MaxProgressErrors {
		p.Errors = append(p.Errors, text)
	}
}

// tell sends a line when it is time; an error means that the caller has gone.
func (p *reporter) tell() error {
	if time.Since(p.told) < tellEvery && len(p.Errors) < wire.MaxProgressErrors {
		return nil
	}
	return p.send()
}

func (p *reporter) send() error {
	p.told = time.Now()
	err := p.emit(p.Progress)
	p.flush()
	p.Errors = nil
	return err
}
