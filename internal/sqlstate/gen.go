//go:build ignore

// The command gen writes table.go from sqlstate.tsv.
package main

import (
	"log"
	"os"

	"github.com/retrypg/retrypg/internal/sqlstate/gen"
)

func main() {
	source, err := os.ReadFile("sqlstate.tsv")
	if err != nil {
		log.Fatal(err)
	}
	code, err := gen.Render(source)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("table.go", code, 0o644); err != nil {
		log.Fatal(err)
	}
}
