// Command summary counts what scripts/test.sh ran.
//
//	go test -json ./... | summary read TESTS   show results as they come, keep them in TESTS
//	summary total TESTS STEPS                  print the last lines; exit 1 if anything failed
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "read":
		err = read(os.Stdin, os.Stdout, os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "total":
		var failed bool
		if failed, err = total(os.Stdout, os.Args[2], os.Args[3]); failed {
			os.Exit(1)
		}
	default:
		err = fmt.Errorf("usage: summary read TESTS | summary total TESTS STEPS")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// results is what became of the tests. Subtests count too.
type results struct {
	Passed   int
	Failed   []string
	Skipped  []string // "package.Test: reason"
	Packages int
	Seconds  float64 // sum over the packages
}

// event is a line of go test -json; see go doc test2json and go help buildjson.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// reading is the state of read.
type reading struct {
	results
	out     io.Writer
	output  map[string][]string // of tests that have not ended
	failing map[string]bool     // packages with a failed test
}

// read follows go test: one line for each package, the output of what fails.
func read(in io.Reader, out io.Writer, file string) error {
	r := &reading{out: out, output: map[string][]string{}, failing: map[string]bool{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // not from a test: go's own words
			continue
		}
		r.event(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the output of go test: %w", err)
	}
	text, err := json.Marshal(r.results)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

func (r *reading) event(e event) {
	name := strings.TrimSuffix(e.Package+"."+e.Test, ".")
	switch e.Action {
	case "output":
		r.output[name] = append(r.output[name], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnd(e, name)
		} else {
			r.testEnd(e, name)
		}
		delete(r.output, name)
	}
}

func (r *reading) testEnd(e event, name string) {
	switch e.Action {
	case "pass":
		r.Passed++
	case "skip":
		r.Skipped = append(r.Skipped, name+": "+reason(r.output[name]))
	case "fail":
		r.Failed = append(r.Failed, name)
		r.failing[e.Package] = true
		fmt.Fprint(r.out, strings.Join(r.output[name], ""))
	}
}

func (r *reading) packageEnd(e event, name string) {
	r.Packages++
	r.Seconds += e.Elapsed
	switch {
	case e.Action == "fail":
		// A package can fail with no test to blame: it does not build, it ran
		// out of time, or it crashed. The output says which.
		if !r.failing[e.Package] {
			r.Failed = append(r.Failed, name)
		}
		fmt.Fprint(r.out, strings.Join(r.output[name], ""))
		for test, lines := range r.output { // tests that were running when it died
			if strings.HasPrefix(test, e.Package+".") {
				fmt.Fprint(r.out, strings.Join(lines, ""))
			}
		}
		fmt.Fprintf(r.out, "FAILED  %s (%.1fs)\n", e.Package, e.Elapsed)
	case e.Action == "pass":
		fmt.Fprintf(r.out, "ok      %s (%.1fs)\n", e.Package, e.Elapsed)
	}
}

// reason is what a skipped test said last.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok { // "file_test.go:12: text"
			if _, text, ok = strings.Cut(text, ": "); ok {
				return text
			}
		}
		return line
	}
	return "no reason given"
}

// total prints what ran, what was left out, and the count. A step counts like a
// test. It reports whether anything failed.
func total(out io.Writer, testsFile, stepsFile string) (bool, error) {
	var r results
	text, err := os.ReadFile(testsFile)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		r.Failed = append(r.Failed, "go test: no results: "+err.Error())
	}
	steps, err := os.ReadFile(stepsFile)
	if err != nil {
		return true, err
	}
	passed, skipped := r.Passed, len(r.Skipped)
	failed, left := r.Failed, r.Skipped
	var ran []string
	fuzzed := 0
	for line := range strings.Lines(string(steps)) {
		kind, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case kind == "out":
			left = append(left, name)
		case kind == "failed":
			failed = append(failed, name)
		case strings.HasPrefix(name, "fuzz "):
			fuzzed++
		default:
			ran = append(ran, name)
		}
	}
	passed += fuzzed + len(ran)
	fmt.Fprintf(out, "ran: %s, %d tests in %d packages (%.0f s of testing), fuzz of %d targets\n",
		strings.Join(ran, ", "), r.Passed+len(r.Failed), r.Packages, r.Seconds, fuzzed)
	for _, name := range left {
		fmt.Fprintln(out, "left out:", name)
	}
	if len(left) == 0 {
		fmt.Fprintln(out, "left out: nothing")
	}
	for _, name := range failed {
		fmt.Fprintln(out, "FAILED:", name)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, len(failed), skipped)
	return len(failed) > 0, nil
}
