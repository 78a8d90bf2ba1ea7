//go:build ha && linux

package ha_test

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/retrypg/retrypg/integration/audit"
)

// row is what one way went through in one event.
type row struct {
	event, check, way   string
	told                *audit.Report
	library, path, self time.Duration // longest times without a success: of the library, of a probe on its path, of the cluster
}

type rows []row

// report is printed when all tests have run.
var report rows

func (r rows) print(out io.Writer) {
	if len(r) == 0 {
		return
	}
	fmt.Fprintf(out, "\nLongest time without a success, in ms (%d writers for each way):\n", *workers)
	fmt.Fprintln(out, "  cluster: none of the servers, asked directly by a probe, took a write")
	fmt.Fprintln(out, "  path:    the same for a probe that takes the way's path, through HAProxy and PgBouncer")
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.Debug)
	fmt.Fprintln(w, "event\tcommit check\tway\tok\terrors\tunknown\tretrypg\tcluster\tdifference\tpath\tdifference\t")
	for _, e := range r {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%+d\t%d\t%+d\t\n", e.event, e.check, e.way,
			len(e.told.Of(audit.OK)), len(e.told.Of(audit.NotApplied)), len(e.told.Of(audit.Unknown)),
			e.library.Milliseconds(), e.self.Milliseconds(), (e.library - e.self).Milliseconds(),
			e.path.Milliseconds(), (e.library - e.path).Milliseconds())
	}
	_ = w.Flush() // to the standard output
}
