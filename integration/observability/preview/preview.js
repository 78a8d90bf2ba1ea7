"use strict";
// Draws the panels of a Grafana dashboard from the answers of Prometheus: what of Grafana's model this dashboard uses.
(() => {
  const { dashboard, answers, away, seconds, step } = JSON.parse(document.getElementById("picture").textContent);

  // Grafana's classic palette, and its names.
  const palette = ["#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#5794F2", "#BA43A9", "#9D8CD6", "#B7DBAB", "#F4D598", "#70DBED", "#F9BA8F"];
  const named = { green: "#5ba64b", yellow: "#d9a400", red: "#e02f44" };
  const ink = { text: "#ccccdc", quiet: "#9a9aa8", grid: "#25282e", away: "rgba(224, 47, 68, 0.22)" };
  const font = '11px "DejaVu Sans", "Liberation Sans", Arial, sans-serif';
  const times = Array.from({ length: Math.round(seconds / step) + 1 }, (_, i) => i * step);

  const short = (v, digits = 3) => {
    const [of, suffix] = Math.abs(v) >= 1e6 ? [1e6, " Mil"] : Math.abs(v) >= 1e3 ? [1e3, " K"] : [1, ""];
    return Number((v / of).toPrecision(digits)) + suffix;
  };
  const units = {
    none: (v) => short(v),
    short: (v) => short(v),
    ops: (v) => short(v) + " ops/s",
    percentunit: (v) => short(v * 100, 4) + "%",
    s: (v) => (v === 0 ? "0 s" : Math.abs(v) < 0.001 ? short(v * 1e6) + " µs" : Math.abs(v) < 1 ? short(v * 1e3) + " ms" : short(v) + " s"),
  };
  const clock = (s) => Math.floor(s / 60) + ":" + String(Math.round(s % 60)).padStart(2, "0");

  const add = (parent, name, className, text = "") => {
    const e = parent.appendChild(document.createElement(name));
    e.className = className;
    e.textContent = text;
    return e;
  };

  // seriesOf is what the targets of a panel have for an answer, with gaps where there is no number.
  function seriesOf(panel) {
    return panel.targets.flatMap((target) => (answers[panel.id][target.refId] ?? []).map(({ metric, points }) => {
      const column = times.map(() => null);
      for (const [index, value] of points ?? []) column[index] = value;
      return { label: target.legendFormat.replace(/{{(\w+)}}/g, (_, name) => metric[name] ?? ""), column };
    })).filter(({ column }) => column.some((v) => v !== null));
  }

  // colorOf is the colour of the last threshold that a value reaches.
  const colorOf = ({ thresholds }, v) => named[thresholds.steps.findLast((s) => s.value === null || v >= s.value).color];
  const mappingOf = ({ mappings = [] }, v) => mappings[0]?.options[String(v)];

  const axis = (more) => ({
    stroke: ink.quiet, font, gap: 4,
    grid: { stroke: ink.grid, width: 1 }, ticks: { stroke: ink.grid, width: 1, size: 4 }, ...more,
  });
  const timeAxis = (space) => axis({ size: 24, space, incrs: [10, 20, 30, 60, 120, 300], values: (_, splits) => splits.map(clock) });

  // The annotation "Outages", behind everything.
  const shade = (u) => {
    u.ctx.save();
    u.ctx.fillStyle = ink.away;
    for (const [index] of (away ?? []).flatMap((a) => a.points ?? [])) {
      const left = u.valToPos(index * step, "x", true);
      u.ctx.fillRect(left, u.bbox.top, u.valToPos((index + 1) * step, "x", true) - left, u.bbox.height);
    }
    u.ctx.restore();
  };

  // A panel is marked when it is drawn, which is later: an error there would show in the missing mark only.
  const mark = (section) => section.setAttribute("data-drawn", "");
  const plot = (parent, opts, columns) => new uPlot({
    width: parent.clientWidth, height: parent.clientHeight, legend: { show: false }, cursor: { show: false },
    plugins: [{ hooks: { draw: () => mark(parent.parentElement) } }], ...opts,
  }, [times, ...columns], parent);

  // legend names as many series as there is room for, and says how many more there are.
  function legend(parent, entries) {
    const list = add(parent, "div", "legend");
    const items = entries.map(({ label, color }) => {
      const item = add(list, "span", "");
      add(item, "i", "").style.background = color;
      item.append(label);
      return item;
    });
    const more = add(list, "span", "");
    for (let hidden = 1; list.scrollHeight > list.clientHeight; hidden++) {
      items.pop().remove();
      more.textContent = "and " + hidden + " more";
    }
  }

  function drawLines(section, panel, series) {
    const { unit, min, max, custom } = panel.fieldConfig.defaults;
    const stacked = custom.stacking?.mode === "normal";
    const parent = add(section, "div", "plot");
    const colors = series.map((_, i) => palette[i % palette.length]);
    legend(section, series.map(({ label }, i) => ({ label, color: colors[i] })));
    let columns = series.map((s) => s.column);
    if (stacked) {
      const sum = times.map(() => 0);
      columns = columns.map((column) => column.map((v, i) => (sum[i] += v ?? 0)));
    }
    const alpha = Math.round(custom.fillOpacity * 2.55).toString(16).padStart(2, "0");
    plot(parent, {
      padding: [8, 18, 0, 0],
      scales: { x: { time: false, range: () => [0, seconds] }, y: { range: (_, low, high) => [min ?? low, max ?? ((high * 1.1) || 1)] } },
      axes: [timeAxis(parent.clientWidth < 400 ? 60 : 50), axis({ size: unit === "ops" ? 72 : 58, space: 28, values: (_, splits) => splits.map((v) => units[unit](v)) })],
      series: [{}, ...series.map((_, i) => ({
        stroke: colors[i], fill: colors[i] + alpha, width: 1.5, points: { show: false }, spanGaps: custom.spanNulls,
      }))],
      bands: stacked ? series.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })) : [],
      hooks: { drawClear: [shade] },
    }, columns);
  }

  // runsOf are the stretches of a column in which the value is the same.
  function runsOf(column) {
    const runs = [];
    column.forEach((value, i) => {
      const last = runs.at(-1);
      if (last && last.value === value) last.end = i + 1;
      else runs.push({ value, begin: i, end: i + 1 });
    });
    return runs.filter((r) => r.value !== null);
  }

  function drawStates(section, panel, series) {
    const defaults = panel.fieldConfig.defaults;
    const parent = add(section, "div", "plot");
    legend(section, Object.values(defaults.mappings[0].options).map(({ text, color }) => ({ label: text, color: named[color] })));
    const bars = (u) => {
      const { ctx } = u;
      ctx.save();
      ctx.font = font;
      ctx.textAlign = "left";
      ctx.textBaseline = "middle";
      series.forEach(({ column }, row) => {
        const top = u.valToPos(row + 0.1, "y", true);
        const height = u.valToPos(row + 0.9, "y", true) - top;
        for (const { value, begin, end } of runsOf(column)) {
          const left = u.valToPos(begin * step, "x", true);
          const width = u.valToPos(Math.min(end * step, seconds), "x", true) - left;
          ctx.fillStyle = colorOf(defaults, value) + "cc";
          ctx.fillRect(left, top, width, height);
          const { text } = mappingOf(defaults, value);
          if (ctx.measureText(text).width + 8 > width) continue;
          ctx.fillStyle = "#fff";
          ctx.fillText(text, left + 5, top + height / 2);
        }
      });
      ctx.restore();
    };
    const labels = series.map((s) => s.label);
    plot(parent, {
      padding: [4, 18, 0, 0],
      scales: { x: { time: false, range: () => [0, seconds] }, y: { dir: -1, range: () => [0, series.length] } },
      axes: [timeAxis(50), axis({
        size: 10 + 6.6 * Math.max(...labels.map((l) => l.length)), grid: { show: false }, ticks: { show: false },
        splits: () => labels.map((_, i) => i + 0.5), values: () => labels,
      })],
      series: [{}, ...series.map(() => ({ paths: () => null, points: { show: false } }))],
      hooks: { drawClear: [shade], draw: [bars] },
    }, series.map((s) => s.column));
  }

  function drawStat(section, panel, [{ column }]) {
    const defaults = panel.fieldConfig.defaults;
    const value = column.findLast((v) => v !== null);
    section.classList.add("stat");
    section.style.background = section.style.borderColor = colorOf(defaults, value);
    if (panel.options.graphMode === "area") {
      plot(add(section, "div", "plot"), {
        padding: [0, 0, 0, 0],
        scales: { x: { time: false, range: () => [0, seconds] }, y: { range: (_, low, high) => [Math.min(defaults.min ?? low, low), high * 1.05] } },
        axes: [{ show: false }, { show: false }],
        series: [{}, { stroke: "#ffffff99", fill: "#ffffff33", width: 1, points: { show: false } }],
      }, [column]);
    } else mark(section);
    const { unit, decimals } = defaults;
    const number = unit === "percentunit" ? (value * 100).toFixed(decimals) + "%" : value.toFixed(decimals);
    add(section, "div", "value", mappingOf(defaults, value)?.text ?? number);
  }

  const kinds = { timeseries: drawLines, "state-timeline": drawStates, stat: drawStat };
  const main = document.querySelector("main");
  for (const panel of dashboard.panels) {
    const { x, y, w, h } = panel.gridPos;
    const place = add(main, panel.type === "row" ? "h2" : "section", "");
    place.style.gridArea = [y + 1, x + 1, "span " + h, "span " + w].join(" / ");
    if (panel.type === "row") {
      place.textContent = panel.title;
      mark(place);
      continue;
    }
    add(place, "h3", "", panel.title);
    kinds[panel.type](place, panel, seriesOf(panel));
  }
})();
