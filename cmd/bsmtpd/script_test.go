package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what is printed into the scripts instead of comparing it")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bsmtpd": main, "mailq": main, "sendmail": main})
}

// TestScripts runs testdata/script/*.txtar: what is typed, what is printed, and
// with which exit code. "api FILE" starts an API that answers as the file says,
// see fakeAPI; "exit N COMMAND" wants that exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "TZ=UTC", "BSMTPD_DATA="+filepath.Join(e.WorkDir, "data"))
			return os.Mkdir(filepath.Join(e.WorkDir, "data"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"api": startAPI, "exit": wantExit, "said": wantSaid},
	})
}

// wantExit runs a command and compares its exit code.
func wantExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// wantSaid looks for a call in the log of the API: "said METHOD PATH [TEXT]",
// where TEXT is a part of the decoded query or body.
func wantSaid(ts *testscript.TestScript, neg bool, args []string) {
	log := ts.ReadFile("calls")
	found := false
	for line := range strings.SplitSeq(log, "\n") {
		match := strings.HasPrefix(line, args[0]+" "+args[1]+" ")
		for _, text := range args[2:] {
			match = match && strings.Contains(line, text)
		}
		found = found || match
	}
	if found == neg {
		ts.Fatalf("the API was told:\n%s", log)
	}
}

// startAPI listens on data/admin.sock, and with "api FILE tcp" on a TCP port that
// $SERVER then names, where it wants the token "secret".
func startAPI(ts *testscript.TestScript, neg bool, args []string) {
	f := &fakeAPI{answers: parseAnswers(ts.ReadFile(args[0])), log: ts.MkAbs("calls")}
	network, address := "unix", ts.MkAbs("data/admin.sock")
	if len(args) > 1 {
		network, address, f.token = "tcp", "127.0.0.1:0", "secret"
	}
	l, err := net.Listen(network, address)
	ts.Check(err)
	if network == "tcp" {
		ts.Setenv("SERVER", "http://"+l.Addr().String())
	}
	s := &http.Server{Handler: f, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		s.Serve(l)
		close(done)
	}()
	ts.Defer(func() {
		s.Close()
		<-done
	})
}

// fakeAPI answers from a file of sections:
//
//	GET /api/v1/queues 200
//	the body, up to the next such line
//
// @3h12m30s@ in a body is the moment so long ago in RFC 3339, @unix 5m@ in unix
// seconds, and @+5m@ a moment to come. A call that no section answers is 404.
type fakeAPI struct {
	answers map[string]answer
	token   string
	log     string

	mu sync.Mutex // guards the log
}

type answer struct {
	status int
	body   string
}

var sectionLine = regexp.MustCompile(`^(GET|POST|PUT|PATCH|DELETE) (/\S+)(?: (\d+))?$`)

func parseAnswers(text string) map[string]answer {
	out := map[string]answer{}
	key := ""
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if m := sectionLine.FindStringSubmatch(lines.Text()); m != nil {
			key = m[1] + " " + m[2]
			status, _ := strconv.Atoi(m[3])
			out[key] = answer{status: max(status, 200)}
			if m[3] != "" {
				out[key] = answer{status: status}
			}
			continue
		}
		a := out[key]
		a.body += lines.Text() + "\n"
		out[key] = a
	}
	return out
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	query, _ := url.QueryUnescape(r.URL.RawQuery)
	f.note(fmt.Sprintf("%s %s ?%s %s", r.Method, r.URL.Path, query, strings.ReplaceAll(string(body), "\n", " ")))
	a, ok := f.answers[r.Method+" "+r.URL.Path]
	switch {
	case f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token:
		a = answer{401, `{"title":"Unauthorized","status":401,"kind":"denied","detail":"the token is not known"}`}
	case !ok:
		a = answer{404, `{"title":"Not Found","status":404,"kind":"not-found","detail":"there is no such thing"}`}
	}
	kind := "application/json"
	switch {
	case a.status >= 400:
		kind = "application/problem+json"
	case strings.Count(a.body, "\n") > 1:
		kind = "application/x-ndjson"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(a.status)
	io.WriteString(w, moments.ReplaceAllStringFunc(a.body, fill))
}

func (f *fakeAPI) note(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(f.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	fmt.Fprintln(file, line)
}

var moments = regexp.MustCompile(`@(unix )?(\+?)([0-9hms]+)@`)

func fill(s string) string {
	m := moments.FindStringSubmatch(s)
	d, err := time.ParseDuration(m[3])
	if err != nil {
		panic(err)
	}
	if m[2] == "" {
		d = -d
	}
	t := time.Now().Add(d).UTC()
	if m[1] != "" {
		return strconv.FormatInt(t.Unix(), 10)
	}
	return t.Format(time.RFC3339)
}
