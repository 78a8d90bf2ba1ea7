package metrics

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// seen is what the SDK read back of one instrument.
type seen struct {
	kind Kind
	keys map[attribute.Key]bool
}

func look(t *testing.T, m metricdata.Metrics) seen {
	t.Helper()
	s := seen{keys: map[attribute.Key]bool{}}
	note := func(set attribute.Set) {
		for _, kv := range set.ToSlice() {
			s.keys[kv.Key] = true
		}
	}
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		s.kind = KindCounter
		if !data.IsMonotonic {
			s.kind = KindUpDownCounter
		}
		for _, p := range data.DataPoints {
			note(p.Attributes)
		}
	case metricdata.Histogram[int64]:
		s.kind = KindHistogram
		for _, p := range data.DataPoints {
			note(p.Attributes)
		}
	case metricdata.Histogram[float64]:
		s.kind = KindHistogram
		for _, p := range data.DataPoints {
			note(p.Attributes)
		}
	case metricdata.Gauge[int64]:
		s.kind = KindGauge
		for _, p := range data.DataPoints {
			note(p.Attributes)
		}
	case metricdata.Gauge[float64]:
		s.kind = KindGauge
		for _, p := range data.DataPoints {
			note(p.Attributes)
		}
	default:
		t.Fatalf("%s has data of type %T", m.Name, m.Data)
	}
	return s
}

func TestInstrumentsTableIsWhatIsReallyEmitted(t *testing.T) {
	t.Parallel()
	r, reader, _ := newSDK(t, Options{ServerAddress: "db.example", ServerPort: 5432})
	exercise(t.Context(), r)
	emitted := collect(t, reader)

	table := Instruments()
	require.Len(t, emitted, len(table))
	for _, row := range table {
		m, ok := emitted[row.Name]
		require.True(t, ok, "%s is in the table but not emitted", row.Name)
		require.Equal(t, row.Unit, m.Unit, row.Name)
		require.NotEmpty(t, row.Unit, row.Name)
		require.Equal(t, row.Description, m.Description, row.Name)
		require.NotEmpty(t, row.Description, row.Name)
		s := look(t, m)
		require.Equal(t, row.Kind, s.kind, row.Name)
		want := map[attribute.Key]bool{AttrDBSystem: true, AttrServerAddress: true, AttrServerPort: true}
		for _, key := range row.Attributes {
			want[key] = true
		}
		require.Equal(t, want, s.keys, row.Name)
	}
}

func TestPackageDocumentationHasTheInstrumentsTable(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	var rows []string
	for line := range strings.Lines(string(source)) {
		if text, ok := strings.CutPrefix(line, "//\t"); ok && !strings.HasPrefix(text, "name ") {
			rows = append(rows, strings.Join(strings.Fields(text), " "))
		}
	}
	var want []string
	for _, row := range Instruments() {
		meaning := strings.ToLower(row.Description[:1]) + strings.TrimSuffix(row.Description[1:], ".")
		want = append(want, fmt.Sprintf("%s %s %s %s", row.Name, row.Kind, row.Unit, meaning))
	}
	require.Equal(t, want, rows)
}

func TestInstrumentsReturnsACopy(t *testing.T) {
	t.Parallel()
	table := Instruments()
	table[0].Name = "changed"
	table[0].Attributes[0] = "changed"
	require.Equal(t, nameAttempts, Instruments()[0].Name)
	require.Equal(t, AttrOperation, Instruments()[0].Attributes[0])
}

func TestBucketsAscend(t *testing.T) {
	t.Parallel()
	for _, buckets := range [][]float64{durationBuckets, attemptBuckets} {
		require.True(t, slices.IsSorted(buckets))
		require.Len(t, slices.Compact(slices.Clone(buckets)), len(buckets))
	}
}
