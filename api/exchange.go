package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
)

func (s *Server) registerExchange(a huma.API) {
	const tag = "accounts"
	imp := call("POST", "/import/accounts", tag, "import-accounts",
		"Add or replace accounts with their domains from CSV or JSON lines in the request's body; answers with JSON lines of Progress", ScopeAdmin)
	imp.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"text/csv": {}, wire.JSONLines: {}}}
	register(a, imp, s.importAccounts)
	register(a, call("GET", "/export/accounts", tag, "export-accounts", "All accounts with their domains in CSV or JSON lines", ScopeRead), s.exportAccounts)
}

// FormatQuery says how accounts stand in a file.
type FormatQuery struct {
	Format string `query:"format" enum:"csv,jsonl" default:"csv"`
}

// importAccounts reads the body while it answers: the caller sees progress, and
// no more than a batch is in memory.
func (s *Server) importAccounts(ctx context.Context, in *struct {
	FormatQuery
	DryRun bool   `query:"dry_run" doc:"read and check, write nothing"`
	Name   string `query:"name" maxLength:"255" doc:"the file's name, for the texts of errors"`
}) (*huma.StreamResponse, error) {
	name := in.Name
	if name == "" {
		name = "input"
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		r, w := humago.Unwrap(hctx)
		rc := http.NewResponseController(w)
		// The answer begins before the file has ended. The connection is used for
		// nothing else after it: where reading stopped early, the rest of the file
		// would stand before the next request.
		hctx.SetHeader("Connection", "close")
		if err := rc.EnableFullDuplex(); err != nil {
			s.log.Debug("no progress can be shown for an import", "error", err)
		}
		input := http.MaxBytesReader(w, io.NopCloser(&patientReader{r: r.Body, rc: rc, wait: s.config().ReadTimeout}), int64(s.config().MaxImport))
		s.progress(func(p *reporter) error {
			p.DryRun = in.DryRun
			imp := importer{s: s, ctx: ctx, reporter: p}
			for rec, err := range directory.ReadRecords(input, name, directory.Format(in.Format)) {
				if ierr := imp.add(rec, err); ierr != nil {
					return ierr
				}
			}
			return imp.commit()
		}).Body(hctx)
	}}, nil
}

// patientReader gives the caller time anew for each part of the body.
type patientReader struct {
	r    io.Reader
	rc   *http.ResponseController
	wait time.Duration
}

func (p *patientReader) Read(b []byte) (int, error) {
	p.rc.SetReadDeadline(time.Now().Add(p.wait))
	return p.r.Read(b)
}

// importer writes records in batches.
type importer struct {
	*reporter
	s     *Server
	ctx   context.Context
	batch []directory.Record
}

func (m *importer) add(rec directory.Record, err error) error {
	m.Seen++
	if err != nil {
		m.fail(err.Error())
		return m.tell()
	}
	if m.batch = append(m.batch, rec); len(m.batch) < directory.MaxBatch {
		return nil
	}
	return m.commit()
}

// commit writes the accounts of the batch, then the domains of those that were
// taken. After an error what was imported so far stays, and the same file can be
// imported again.
func (m *importer) commit() error {
	batch := m.batch
	m.batch = m.batch[:0]
	if len(batch) == 0 {
		return nil
	}
	if m.DryRun {
		m.Done += int64(len(batch))
		return m.tell()
	}
	domains, err := m.putAccounts(batch)
	for part := range slices.Chunk(domains, directory.MaxBatch) {
		if err != nil {
			break
		}
		err = m.putDomains(part)
	}
	if err != nil {
		return &mail.Error{Kind: mail.KindOf(err),
			Err: fmt.Errorf("the import stopped after %d accounts: %w; import the file again, what is there already stays as it is", m.Done, err)}
	}
	return m.tell()
}

func (m *importer) putAccounts(batch []directory.Record) ([]directory.PutDomain, error) {
	cmd := directory.PutAccounts{By: callerOf(m.ctx).Name}
	for _, rec := range batch {
		cmd.Items = append(cmd.Items, directory.PutAccount{Account: rec.Account, IfVersion: directory.AnyVersion})
	}
	puts, err := m.s.deps.Node.PutAccounts(m.ctx, cmd)
	if err == nil && len(puts) != len(cmd.Items) {
		err = fmt.Errorf("the node answered for %d items of %d", len(puts), len(cmd.Items))
	}
	if err != nil {
		return nil, err
	}
	provider := m.s.deps.Node.Directory().Provider
	var domains []directory.PutDomain
	for i, p := range puts {
		if err := p.Err(); err != nil {
			m.fail(err.Error())
			continue
		}
		m.Done++
		if p.Created {
			m.Created++
		}
		for _, d := range batch[i].Domains {
			if slices.Contains(provider, d.Name) {
				m.fail(fmt.Sprintf("domain %s is the provider's own and cannot belong to account %s", d.Name, d.Login))
				continue
			}
			domains = append(domains, directory.PutDomain{Domain: d, IfVersion: directory.AnyVersion})
		}
	}
	return domains, nil
}

func (m *importer) putDomains(items []directory.PutDomain) error {
	puts, err := m.s.deps.Node.PutDomains(m.ctx, directory.PutDomains{Items: items, By: callerOf(m.ctx).Name})
	if err != nil {
		return err
	}
	for _, p := range puts {
		if err := p.Err(); err != nil {
			m.fail(err.Error())
		}
	}
	return nil
}

func (s *Server) exportAccounts(_ context.Context, in *FormatQuery) (*huma.StreamResponse, error) {
	dir := s.deps.Node.Directory()
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		_, w := humago.Unwrap(hctx)
		contentType := "text/csv; charset=utf-8"
		if in.Format == string(directory.FormatJSONLines) {
			contentType = wire.JSONLines
		}
		hctx.SetHeader("Content-Type", contentType)
		out := s.newLines(w)
		files, err := directory.NewRecordWriter(out.buf, directory.Format(in.Format))
		if err == nil {
			err = export(dir, files)
		}
		if mail.KindOf(err) == mail.Broken {
			s.log.Error("export of accounts left out a damaged row", "error", err)
			err = nil
		}
		if err == nil {
			err = files.Flush()
		}
		if err != nil {
			// A file has no place for a problem: break off, so that nobody takes it
			// for whole.
			s.log.Error("export of accounts broke off", "error", err)
			panic(http.ErrAbortHandler)
		}
		out.flush()
	}}, nil
}

func export(dir directory.Reader, to *directory.RecordWriter) error {
	var err error
	for a := range accountsAfter(dir, "", &err) {
		domains, derr := dir.DomainsOf(a.Login)
		if derr != nil {
			return derr
		}
		if werr := to.Write(directory.Record{Account: a, Domains: domains}); werr != nil {
			return werr
		}
	}
	return err
}
