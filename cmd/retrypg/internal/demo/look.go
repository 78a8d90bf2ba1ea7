package demo

// Look says what the terminal that is written to can do. The zero value is a file.
type Look struct {
	Color bool // ANSI colours
	Live  bool // a line can be written again: the cursor moves
	Width int  // columns; 0 means 80
}

// The ANSI sequences that every terminal with colours knows (ECMA-48, SGR).
const (
	sgrReset = "\x1b[0m"
	sgrBold  = "\x1b[1m"
	sgrDim   = "\x1b[2m"
	sgrRed   = "\x1b[1;31m"
	sgrGreen = "\x1b[32m"
)

func (l Look) paint(sequence, text string) string {
	if !l.Color {
		return text
	}
	return sequence + text + sgrReset
}

func (l Look) bold(text string) string { return l.paint(sgrBold, text) }
func (l Look) dim(text string) string  { return l.paint(sgrDim, text) }

func (l Look) mark(text string, m Mark) string {
	switch m {
	case Good:
		return l.paint(sgrGreen, text)
	case Bad:
		return l.paint(sgrRed, text)
	}
	return text
}

func (l Look) width() int {
	if l.Width <= 0 {
		return 80
	}
	return l.Width
}
