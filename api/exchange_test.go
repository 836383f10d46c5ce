package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"bsmtpd/api/wire"
	"bsmtpd/directory"
	"bsmtpd/mail"
)

func TestAFileOfAccountsIsImportedInBatches(t *testing.T) {
	w := newTown(t)
	w.account("a0007")
	var file strings.Builder
	file.WriteString("login,addresses,quota,domains\n")
	const n = 1234
	for i := range n {
		fmt.Fprintf(&file, "a%04d,10.1.%d.%d,20MiB,a%04d.example b%04d.example=mail.b%04d.example:2525\n", i, i/256, i%256, i, i, i)
	}
	file.WriteString("bad login,,,\nx,,,provider.example\ny,10.1.0.0,,\n")
	var told []wire.Progress
	last, err := w.admin.ImportAccounts(w.ctx(), strings.NewReader(file.String()), "csv", "customers.csv", false, func(p wire.Progress) { told = append(told, p) })
	if err != nil {
		t.Fatal(err)
	}
	if last.Seen != n+3 || last.Done != n+1 || last.Created != n || last.Failed != 3 || !last.Final {
		t.Fatalf("%+v", last)
	}
	var errs []string
	for _, p := range told {
		errs = append(errs, p.Errors...)
	}
	for _, want := range []string{`customers.csv:1236: login "bad login" has the character`, "domain provider.example is the provider's own", "address 10.1.0.0 belongs to account a0000"} {
		if !strings.Contains(strings.Join(errs, "\n"), want) {
			t.Errorf("no %q in %q", want, errs)
		}
	}
	info, err := w.admin.Account(w.ctx(), "a1233")
	if err != nil || len(info.Domains) != 2 || info.Domains[1].Route != "mail.b1233.example:2525" || info.QuotaBytes != 20<<20 {
		t.Fatal(info, err)
	}

	// What is exported is what was imported, and importing it again changes nothing.
	for _, format := range []string{"csv", "jsonl"} {
		var out bytes.Buffer
		if err := w.admin.ExportAccounts(w.ctx(), &out, format); err != nil {
			t.Fatal(err)
		}
		again, err := w.admin.ImportAccounts(w.ctx(), &out, format, "", false, nil)
		if err != nil || again.Done != n+1 || again.Created != 0 || again.Failed != 0 {
			t.Fatalf("%s: %+v %v", format, again, err)
		}
		if info, _ := w.admin.Account(w.ctx(), "a1233"); info.Version != 1 {
			t.Fatalf("%s: version %d", format, info.Version)
		}
	}
}

func TestADryRunOfAnImportWritesNothing(t *testing.T) {
	w := newTown(t)
	last, err := w.admin.ImportAccounts(w.ctx(), strings.NewReader("login\njansen\nbad login\n"), "csv", "", true, nil)
	if err != nil || last.Done != 1 || last.Failed != 1 || !last.DryRun {
		t.Fatal(last, err)
	}
	_, err = w.admin.Account(w.ctx(), "jansen")
	wantKind(t, err, mail.NotFound, "jansen")
}

// await waits until an account is there.
func (w *town) await(login string) {
	for {
		if a, err := w.Directory().Account(mail.Login(login)); a != nil || err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAnImportShowsProgressBeforeTheFileEnds(t *testing.T) {
	w := newTown(t)
	r, file := io.Pipe()
	told := make(chan wire.Progress, 100)
	done := make(chan error, 1)
	go func() {
		_, err := w.admin.ImportAccounts(w.ctx(), r, "csv", "", false, func(p wire.Progress) { told <- p })
		done <- err
	}()
	fmt.Fprintln(file, "login")
	// Batches go on until progress is heard, so that no pace is assumed; each waits
	// until it is written, so that none pile up.
	var first wire.Progress
	for i := 0; first.Seen == 0; i++ {
		for j := range directory.MaxBatch {
			fmt.Fprintf(file, "a%dx%d\n", i, j)
		}
		w.await(fmt.Sprintf("a%dx%d", i, directory.MaxBatch-1))
		select {
		case first = <-told:
		default:
		}
	}
	if first.Final || first.Done == 0 {
		t.Fatalf("%+v", first)
	}
	file.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestAnImportThatTheNodeCannotCommitSaysHowFarItCame(t *testing.T) {
	w := newTown(t)
	r, file := io.Pipe()
	go func() {
		fmt.Fprintln(file, "login")
		for i := range 500 {
			fmt.Fprintf(file, "a%d\n", i)
		}
		w.await("a499")
		w.mu.Lock()
		w.fail = &mail.Error{Kind: mail.Unavailable, Err: errors.New("no leader")}
		w.mu.Unlock()
		fmt.Fprintln(file, "b")
		file.Close()
	}()
	_, err := w.admin.ImportAccounts(w.ctx(), r, "csv", "", false, nil)
	wantKind(t, err, mail.Unavailable, "stopped after 500 accounts: no leader; import the file again")
}

func TestAFileBeyondTheLimitIsCutOff(t *testing.T) {
	w := newTown(t)
	cfg := testConfig()
	cfg.MaxImport = 100
	if err := w.server.SetConfig(cfg); err != nil {
		t.Fatal(err)
	}
	last, err := w.admin.ImportAccounts(w.ctx(), strings.NewReader("login\n"+strings.Repeat("a\n", 1000)), "csv", "", false, nil)
	if err != nil || last.Failed != 1 {
		t.Fatal(last, err)
	}
	code, text := w.rawAdmin("POST", wire.Prefix+"/import/accounts?format=csv", "login\n"+strings.Repeat("a\n", 1000))
	if code != 200 || !strings.Contains(text, "too large") {
		t.Fatal(code, text)
	}
	code, text = w.rawAdmin("POST", wire.Prefix+"/import/accounts?format=xml", "")
	if code != 422 || !strings.Contains(text, "csv") {
		t.Fatal(code, text)
	}
}
