package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsNameFilesThatExist holds the documents to the folders: a file that
// moves takes the sentence about it along.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	root := filepath.Join("..", "..")
	named := regexp.MustCompile("`([a-z]+/[a-z_/]+\\.(?:go|md|yaml|yml|service|json))`|\\]\\(((?:[a-z.]+/)*[^:)#]+)\\)")
	decisions, err := filepath.Glob(filepath.Join(root, "doc", "decisions", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range decisions {
		if decisions[i], err = filepath.Rel(root, path); err != nil {
			t.Fatal(err)
		}
	}
	usual := []string{"README.md", "CONTRIBUTING.md", "doc/flow.md", "doc/operations.md"}
	for i, doc := range append(usual, decisions...) {
		text, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		found := named.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 && i < len(usual) {
			t.Errorf("%s names no file: is this test blind?", doc)
		}
		for _, m := range found {
			path := filepath.Join(root, m[1])
			if m[2] != "" {
				path = filepath.Join(root, filepath.Dir(doc), m[2])
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s names %s%s, which is not there", doc, m[1], m[2])
			}
		}
	}
}

// TestEachDecisionHasItsNumberAndIsInTheIndex keeps two decisions from having one
// number, and a new one from not being found.
func TestEachDecisionHasItsNumberAndIsInTheIndex(t *testing.T) {
	dir := filepath.Join("..", "..", "doc", "decisions")
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "0*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("there are no decisions, %v", err)
	}
	taken := map[string]string{}
	for _, page := range pages {
		name := filepath.Base(page)
		number := name[:3]
		if other := taken[number]; other != "" {
			t.Errorf("%s and %s have one number", other, name)
		}
		taken[number] = name
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# "+number+" ") {
			t.Errorf("%s does not begin with its number", name)
		}
		if !strings.Contains(string(index), "["+number+"]("+name+")") {
			t.Errorf("%s is not in README.md", name)
		}
	}
}
