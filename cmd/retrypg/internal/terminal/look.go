// Package terminal says what a writer can show, and paints text for it.
package terminal

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Look says what the terminal that is written to can do. The zero value is a file.
type Look struct {
	Color bool // ANSI colours
	Live  bool // a line can be written again: the cursor moves
	Width int  // columns; 0 where that is not known
}

// LookOf finds out what w can do. NO_COLOR is described at https://no-color.org.
func LookOf(w io.Writer) Look {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return Look{}
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		width = 0
	}
	return Look{Live: true, Color: os.Getenv("NO_COLOR") == "", Width: width}
}

// The ANSI sequences that every terminal with colours knows (ECMA-48, SGR).
const (
	reset  = "\x1b[0m"
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[1;31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
)

// Sequences are all that the methods of Look write.
func Sequences() []string { return []string{reset, bold, dim, red, green, yellow} }

func (l Look) paint(sequence, text string) string {
	if !l.Color {
		return text
	}
	return sequence + text + reset
}

// Bold returns text for a heading.
func (l Look) Bold(text string) string { return l.paint(bold, text) }

// Dim returns text that matters less.
func (l Look) Dim(text string) string { return l.paint(dim, text) }

// Good returns text that tells of a success.
func (l Look) Good(text string) string { return l.paint(green, text) }

// Warning returns text that asks for a look.
func (l Look) Warning(text string) string { return l.paint(yellow, text) }

// Bad returns text that tells of a failure.
func (l Look) Bad(text string) string { return l.paint(red, text) }

// Columns returns the width to write for: 80 where it is not known.
func (l Look) Columns() int {
	if l.Width <= 0 {
		return 80
	}
	return l.Width
}
