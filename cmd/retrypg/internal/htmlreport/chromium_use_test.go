//go:build chromium

package htmlreport

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

func TestThePointerShowsTheFiguresOfTheTableInAllCharts(t *testing.T) {
	ctx := chromium(t)
	show(ctx, t, screens[0], saved(t))
	middle := evaluate[[2]float64](ctx, t, `(() => {
		const over = document.querySelector("#throughput .u-over");
		over.scrollIntoView({ block: "center" });
		const r = over.getBoundingClientRect();
		return [r.x + r.width / 2, r.y + r.height / 2];
	})()`)
	do(ctx, t,
		chromedp.MouseEvent("mouseMoved", middle[0]-5, middle[1]),
		chromedp.MouseEvent("mouseMoved", middle[0], middle[1]),
		until(`document.querySelector("#slowest .u-value").textContent.includes(" to ")`),
	)
	legends := evaluate[[][]string](ctx, t, // of each plot: the time, then its figures
		`[...document.querySelectorAll(".u-legend")].map((l) => [...l.querySelectorAll(".u-value")].map((v) => v.textContent))`)
	require.Len(t, legends, 6)
	interval, phase, found := strings.Cut(legends[0][0], " s, ")
	require.True(t, found, legends[0][0])
	require.Equal(t, "failover", phase, "the middle lies in it")
	for _, l := range legends {
		require.Equal(t, legends[0][0], l[0], "all charts show the same time")
	}
	rows := evaluate[[][]string](ctx, t, // of each table: the figures of that time
		`[...document.querySelectorAll("figure")].map((f) => [...f.querySelectorAll("tbody tr")].
			filter((r) => r.cells[0].textContent === "`+interval+`").flatMap((r) => [...r.cells].slice(1).map((c) => c.textContent)))`)
	require.Len(t, rows, 4)
	rates := legends[0][1:]
	for i := range rates {
		rates[i] = strings.TrimSuffix(rates[i], "/s")
	}
	require.Equal(t, rows[0], rates)
	require.Equal(t, rows[1], []string{
		legends[1][2], legends[2][2], legends[3][2], // errors
		legends[1][1], legends[2][1], legends[3][1], // unknown
	})
}

func TestTheChartsFollowAChangeOfTheColourScheme(t *testing.T) {
	ctx := chromium(t)
	show(ctx, t, screens[0], saved(t))
	w := watch(ctx, t)
	evaluate[bool](ctx, t, `document.querySelector("#slowest canvas").classList.toggle("light")`)
	do(ctx, t, prefer("dark"), until(`document.querySelector("#slowest canvas:not(.light)") !== null`))
	requireDrawn(t, evaluate[[]drawn](ctx, t, look)) // in the colours of the dark scheme
	_, messages := w.seen()
	require.Empty(t, messages)
}

func TestTheChartsBecomeNarrowerWithTheScreen(t *testing.T) {
	ctx := chromium(t)
	show(ctx, t, screens[0], saved(t))
	do(ctx, t,
		chromedp.EmulateViewport(500, 900),
		until(`[...document.querySelectorAll(".plot canvas")].every((c) => c.width <= 500)`),
	)
	requireDrawn(t, evaluate[[]drawn](ctx, t, look))
}

// It tries what a page can ask for, as a script in the page would.
func TestThePageCannotReachTheNetwork(t *testing.T) {
	var reached atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer server.Close()
	ctx := chromium(t)
	show(ctx, t, screens[0], saved(t))
	w := watch(ctx, t)
	tried := evaluate[int](ctx, t, `(() => {
		const add = (name, set) => new Promise((done) => {
			const e = Object.assign(document.createElement(name), set);
			e.onload = e.onerror = done;
			document.body.append(e);
		});
		const url = "`+server.URL+`/";
		return Promise.allSettled([
			fetch(url, { mode: "no-cors" }), add("img", { src: url }), add("script", { src: url }),
			add("link", { rel: "stylesheet", href: url }), add("iframe", { src: url }),
		]).then((all) => all.length);
	})()`)
	require.Equal(t, 5, tried)
	require.Zero(t, reached.Load())
	_, messages := w.seen()
	require.NotEmpty(t, messages, "the policy refused them")
}
