package retrypg

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryLinkOfTheDocumentsLeadsSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
	for _, file := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(withoutCode(readDoc(t, file)), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := file
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(file), m[1])
				_, err := os.Stat(target)
				require.NoError(t, err, "in %s", file)
			}
			if anchor := strings.TrimPrefix(m[2], "#"); anchor != "" {
				require.Contains(t, anchors(readDoc(t, target)), anchor, "%s leads to %s", file, target)
			}
		}
	}
}

// Comments and messages of the code send a reader to documents too.
func TestEveryDocumentThatTheCodeNamesExists(t *testing.T) {
	named := regexp.MustCompile(`docs/[a-z]+\.md`)
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range append(files, ".golangci.yml", "Makefile") {
		for _, document := range named.FindAllString(readDoc(t, file), -1) {
			require.FileExists(t, document, "named in %s", file)
		}
	}
}

func TestEveryDocumentIsLinkedFromTheReadme(t *testing.T) {
	readme := readDoc(t, "README.md")
	for _, file := range documents(t) {
		if file != "README.md" {
			require.True(t, strings.Contains(readme, "]("+file), "README.md does not lead to %s", file)
		}
	}
}

// anchors returns the names that GitHub gives to the headings of a document: lower case, without punctuation, words joined
// by hyphens, a number after those that there are already.
func anchors(text string) (names []string) {
	heading := regexp.MustCompile(`(?m)^#+ +(.*?) *$`)
	punctuation := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, m := range heading.FindAllStringSubmatch(withoutCode(text), -1) {
		name := strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		numbered := name
		for n := 1; slices.Contains(names, numbered); n++ {
			numbered = fmt.Sprintf("%s-%d", name, n)
		}
		names = append(names, numbered)
	}
	return names
}

// withoutCode takes the code blocks out of a document: what begins with # there is no heading, and what looks like a link
// is none.
func withoutCode(text string) string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "")
}
