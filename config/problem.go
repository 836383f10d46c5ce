package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Where string // "bsmtpd.yaml:12", "environment BSMTPD_SMTPD_MAX_MESSAGE", "flag smtpd.max_message", "default"
	Key   string // path of the key; empty: the file as a whole
	Text  string // what is wrong and what is allowed
}

// Error is "where: key: text".
func (p Problem) Error() string {
	parts := slices.DeleteFunc([]string{p.Where, p.Key, p.Text}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// Problems is everything that is wrong, in the order in which it was found: the
// error that Load returns for a configuration that cannot be used.
type Problems []Problem

var _ error = Problems(nil)

// Error has one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if err == nil {
		return nil
	}
	if errors.As(err, &joined) {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}

// keyText matches the key that begins the text of an error of Check:
// "radius.clients[0].secret: must not be empty".
var keyText = regexp.MustCompile(`^([a-z0-9_]+(?:\[\d+\])?(?:\.[a-z0-9_]+(?:\[\d+\])?)*): (.*)$`)

// indexText matches the number of an element in a list.
var indexText = regexp.MustCompile(`\[\d+\]`)

// splitCheck takes the key off an error of Check.
func splitCheck(section string, err error) (path, text string) {
	// One error, one line: the text is shown in lists.
	msg := strings.ReplaceAll(err.Error(), "\n", "; ")
	if m := keyText.FindStringSubmatch(msg); m != nil {
		return strings.Trim(section+"."+m[1], "."), m[2]
	}
	return section, msg
}

// unknown is the text for a name that is not known among names.
func unknown(name string, names []string) string {
	if best := nearest(name, names); best != "" {
		return fmt.Sprintf("unknown key; did you mean %q?", best)
	}
	const most = 15
	if len(names) > most {
		return fmt.Sprintf("unknown key; allowed here: %s and %d more, see doc/config.md",
			strings.Join(names[:most], ", "), len(names)-most)
	}
	return "unknown key; allowed here: " + strings.Join(names, ", ")
}

// nearest is the name that was probably meant, or "".
func nearest(name string, names []string) string {
	const longest = 64 // no key is longer, and the comparison takes the square of it
	if len(name) > longest {
		return ""
	}
	best, least := "", 1+max(1, len(name)/3)
	for _, n := range names {
		if d := distance(strings.ToLower(name), n); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is the number of single-byte edits, and swaps of neighbours, that
// turn a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
