package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestDocumentsNameFilesThatExist holds the documents to the folders: a file that
// moves takes the sentence about it along.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	root := filepath.Join("..", "..")
	named := regexp.MustCompile("`([a-z]+/[a-z_/]+\\.(?:go|md|yaml|yml|service|json))`|\\]\\(((?:[a-z.]+/)*[^:)#]+)\\)")
	for _, doc := range []string{"README.md", "CONTRIBUTING.md", "doc/flow.md", "doc/operations.md"} {
		text, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		found := named.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
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
