package retrypg

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadmeHasTheTableOfDSNKeysAsTheCodeHasIt(t *testing.T) {
	requireSection(t, "README.md", "dsn keys", dsnKeyTable())
}

func TestPackageDocumentationHasTheTableOfDSNKeysAsTheCodeHasIt(t *testing.T) {
	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	// The one code block that begins with the first key.
	block := regexp.MustCompile(`(?m)^//\t` + dsnKeys[0].name + `.*\n(?://\t.*\n)*`)
	at := block.FindIndex(source)
	require.NotNil(t, at, "doc.go has no code block that begins with %s", dsnKeys[0].name)
	want := dsnKeyComment()
	if *updateDocs && string(source[at[0]:at[1]]) != want {
		source = append(source[:at[0]:at[0]], append([]byte(want), source[at[1]:]...)...)
		require.NoError(t, os.WriteFile("doc.go", source, 0o644))
		return
	}
	require.Equal(t, want, string(source[at[0]:at[1]]), "write it anew: %s", howToUpdate)
}

// dsnKeyComment is the table of the DSN keys as a code block of a Go comment, which knows no tables.
func dsnKeyComment() string {
	var b strings.Builder
	for _, k := range dsnKeys {
		b.WriteString("//\t" + k.name + "=" + k.def)
		if len(k.aliases) > 0 {
			b.WriteString("   (also " + strings.Join(k.aliases, ", ") + ")")
		}
		b.WriteString("\n")
		for _, text := range []string{k.doc, k.allowed} {
			for _, line := range wrapped(text, 104) {
				b.WriteString("//\t    " + line + "\n")
			}
		}
	}
	return b.String()
}

// wrapped breaks text between words into lines of at most width bytes.
func wrapped(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
