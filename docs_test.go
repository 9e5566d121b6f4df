package ha

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test, file and mutant that docs/failover.md names is there.
func TestFailoverDocNamesWhatIsThere(t *testing.T) {
	doc, err := os.ReadFile("docs/failover.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "." {
			return err
		}
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "storetest") && strings.HasSuffix(path, ".go") {
			text, err := os.ReadFile(path)
			tests.Write(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all, found := tests.String(), 0
	for _, name := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(doc), -1) {
		if found++; !strings.Contains(all, "func "+name[1]+"(") {
			t.Errorf("there is no %s", name[1])
		}
	}
	for _, part := range regexp.MustCompile(`(?:mutants?|storetest) (\*[^.|\n]*\*)`).FindAllStringSubmatch(string(doc), -1) {
		for _, name := range regexp.MustCompile(`\*([^*]+)\*`).FindAllStringSubmatch(part[1], -1) {
			if found++; !strings.Contains(all, `"`+name[1]+`"`) {
				t.Errorf("there is no %q", name[1])
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d names found: is the document written otherwise now?", found)
	}
}
