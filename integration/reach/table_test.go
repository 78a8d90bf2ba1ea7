package reach_test

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

var header = []string{
	"situation", "reach", "client", "first", "all", "errors told", "of these 25006", "unknown", "untrue", "attempts/s", "p50", "p99", "entries/s", "runs",
}

// row is the results of one client in one situation.
type row []*result

// cells returns what follows the name of the client.
func (r row) cells() []string {
	var told, demoted, unknown, untrue, missing int
	for _, one := range r {
		told += len(one.told)
		demoted += one.toldOf("25006")
		unknown += one.unknown()
		untrue += len(one.report.Wrong())
		missing += one.callers - one.back
	}
	all := duration(median(r, func(one *result) time.Duration { return one.all }))
	if missing > 0 {
		all = fmt.Sprintf("never: %d", missing)
	}
	return []string{
		duration(median(r, func(one *result) time.Duration { return one.first })), all,
		strconv.Itoa(told), strconv.Itoa(demoted), strconv.Itoa(unknown), strconv.Itoa(untrue),
		number(median(r, func(one *result) float64 { return one.attempts })),
		duration(median(r, func(one *result) time.Duration { return one.p50 })),
		duration(median(r, func(one *result) time.Duration { return one.p99 })),
		number(median(r, func(one *result) float64 { return one.perSecond })),
		strconv.Itoa(len(r)),
	}
}

func median[T time.Duration | float64](r row, of func(*result) T) T {
	var values []T
	for _, one := range r {
		values = append(values, of(one))
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// duration leaves empty what was not measured.
func duration(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(100 * time.Millisecond).String()
	}
}

func number(f float64) string {
	if f == 0 {
		return ""
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}
