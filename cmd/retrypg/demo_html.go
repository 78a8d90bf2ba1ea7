package main

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/retrypg/retrypg/cmd/retrypg/internal/demo"
	"github.com/retrypg/retrypg/cmd/retrypg/internal/htmlreport"
)

// defaultHTML is where the HTML report goes where nothing is said: one file of the user, which each run writes again. It
// is empty where the system names no directory for such files.
func defaultHTML() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "retrypg", "retrypg-demo.html")
}

// checkHTML finds before the run what would be found after it: that the report cannot be written there.
func checkHTML(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("--report %s: it is a directory: give a file", path)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return fmt.Errorf("--report %s: there is no directory %s", path, filepath.Dir(path))
	}
	return nil
}

// showHTML writes the HTML report and names it in a last line. Where nobody asked for that file, that it cannot be written
// is no failure of the demo.
func showHTML(w io.Writer, path string, asked bool, report *demo.Report) error {
	if path == "" {
		return nil
	}
	if !asked {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return say(w, "none, as its directory cannot be made: %v; --report names another file", err)
		}
	}
	target, err := writeHTML(path, report)
	switch {
	case err == nil:
		return say(w, "%s", target)
	case asked:
		return err
	}
	return say(w, "none: %v; --report names another file", err)
}

func say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, "\nreport: "+format+"\n", args...)
	return err
}

// writeHTML writes the HTML report to path and returns the URL that opens it.
func writeHTML(path string, report *demo.Report) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("write the HTML report: %w", err)
	}
	var b bytes.Buffer
	if err := htmlreport.Write(&b, report, htmlreport.Here(version())); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write the HTML report: %w", err)
	}
	return fileURL(path), nil
}

// fileURL returns the URL of an absolute path.
func fileURL(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/...
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}
