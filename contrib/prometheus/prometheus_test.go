// Package prometheus tests that what is handed to Prometheus and Grafana names
// metrics that exist.
package prometheus

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var (
	declared = regexp.MustCompile(`\.(Counters?|Gauges?|GaugeFunc|Seconds|Sizes)\(\s*"([a-z0-9_]+)"`)
	raw      = regexp.MustCompile(`NewDesc\(\s*(?:metric\.Namespace\s*\+\s*"_|"bsmtpd_)([a-z0-9_]+)"`)
	used     = regexp.MustCompile(`bsmtpd_[a-z0-9_]+`)
	suffix   = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// inCode finds the metrics that the code declares.
func inCode(t *testing.T) map[string]bool {
	names := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".cache" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			names["bsmtpd_"+m[2]] = true
			if m[1] == "Seconds" || m[1] == "Sizes" {
				for _, s := range []string{"_bucket", "_sum", "_count"} {
					names["bsmtpd_"+m[2]+s] = true
				}
			}
		}
		for _, m := range raw.FindAllStringSubmatch(string(text), -1) {
			names["bsmtpd_"+m[1]] = true
		}
		return nil
	})
	if err != nil || len(names) < 20 {
		t.Fatalf("found %d metrics, %v", len(names), err)
	}
	return names
}

// checkExpr reports names in a query that the code does not declare.
func checkExpr(t *testing.T, names map[string]bool, where, expr string) {
	for _, name := range used.FindAllString(expr, -1) {
		if !names[name] {
			t.Errorf("%s: the code has no metric %s", where, suffix.ReplaceAllString(name, ""))
		}
	}
}

func TestAlertsNameMetricsThatExist(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	text, err := os.ReadFile("alerts.yml")
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil || len(file.Groups) != 1 || len(file.Groups[0].Rules) < 8 {
		t.Fatalf("alerts.yml: %v, %+v", err, file)
	}
	names := inCode(t)
	for _, r := range file.Groups[0].Rules {
		if !slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
			t.Errorf("%s: needs a severity, a summary and an action", r.Alert)
		}
		checkExpr(t, names, r.Alert, r.Expr)
	}
}

func TestTheDashboardNamesMetricsThatExist(t *testing.T) {
	var board struct {
		Title  string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile("dashboard.json")
	if err == nil {
		err = json.Unmarshal(text, &board)
	}
	if err != nil || board.Title == "" || len(board.Panels) < 6 {
		t.Fatalf("dashboard.json: %v, %d panels", err, len(board.Panels))
	}
	names := inCode(t)
	for _, p := range board.Panels {
		if p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q has no title or no query", p.Title)
		}
		for _, q := range p.Targets {
			checkExpr(t, names, p.Title, q.Expr)
		}
	}
}
