package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// run is what go test -json says of a good, a bad and a skipped test, and of two
// packages that fail without a test to blame.
const run = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"quiet\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood","Elapsed":0.1}
{"Action":"output","Package":"m/a","Test":"TestBad","Output":"    a_test.go:5: it is wrong\n"}
{"Action":"fail","Package":"m/a","Test":"TestBad"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"    a_test.go:7: no exim here\n"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"--- SKIP: TestSkip (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestSkip"}
{"Action":"fail","Package":"m/a","Elapsed":1.5}
{"ImportPath":"m/b [m/b.test]","Action":"build-output","Output":"b.go:1: undefined: x\n"}
{"Action":"fail","Package":"m/b","Elapsed":0,"FailedBuild":"m/b [m/b.test]"}
{"Action":"output","Package":"m/c","Test":"TestHangs","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"m/c","Elapsed":600}
go: downloading something
`

func TestReadTellsWhatFailsAndKeepsQuietAboutTheRest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tests")
	var out bytes.Buffer
	if err := read(strings.NewReader(run), &out, file); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"it is wrong", "undefined: x", "test timed out", "FAILED  m/a (1.5s)", "go: downloading"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("does not say %q:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "quiet") {
		t.Errorf("shows what a good test wrote:\n%s", &out)
	}
	text, _ := os.ReadFile(file)
	want := `{"Passed":1,"Failed":["m/a.TestBad","m/b","m/c"],"Skipped":["m/a.TestSkip: no exim here"],"Packages":3,"Seconds":601.5}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestTotalCountsStepsLikeTests(t *testing.T) {
	dir := t.TempDir()
	tests, steps := filepath.Join(dir, "tests"), filepath.Join(dir, "steps")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(tests, `{"Passed":40,"Skipped":["m/a.TestSkip: no exim here"],"Packages":3,"Seconds":9}`)
	write(steps, "ok gofmt\nok fuzz ./a FuzzA\nout swaks: not here\n")
	var out bytes.Buffer
	failed, err := total(&out, tests, steps)
	want := `ran: gofmt, 40 tests in 3 packages (9 s of testing), fuzz of 1 targets
left out: m/a.TestSkip: no exim here
left out: swaks: not here
42 passed, 0 failed, 1 skipped
`
	if err != nil || failed || out.String() != want {
		t.Errorf("failed %v, %v, got:\n%s", failed, err, &out)
	}

	write(steps, "failed vet\n")
	out.Reset()
	if failed, _ := total(&out, tests, steps); !failed || !strings.HasSuffix(out.String(), "FAILED: vet\n40 passed, 1 failed, 1 skipped\n") {
		t.Errorf("failed %v, got:\n%s", failed, &out)
	}
	out.Reset()
	if failed, _ := total(&out, filepath.Join(dir, "none"), steps); !failed {
		t.Errorf("no results were taken for good ones:\n%s", &out)
	}
}
