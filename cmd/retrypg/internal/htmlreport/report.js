"use strict";
// Draws the charts from the same figures that the tables show. Nothing is loaded, and nothing is written but the charts.
(() => {
  const data = JSON.parse(document.getElementById("figures").textContent);
  // A program is told from the others by its dashes too, not by its colour alone.
  const looks = [
    { dash: [7, 4], border: "dashed", width: 1.75 },
    { dash: [2, 3], border: "dotted", width: 2 },
    { dash: [], border: "solid", width: 2 },
  ];
  const axisWidth = 48; // of all charts, so that their time axes stand below each other
  const units = {
    "/s": (v) => v + "/s",
    "s": (v) => (v < 1 ? Math.round(v * 1000) + " ms" : seconds(v) + " s"),
    "": (v) => String(v),
  };
  let plots = [];

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const seconds = (v) => String(Math.round(v * 1000) / 1000);

  // when is the interval of an index and the phase that it lies in.
  function when(i) {
    const begin = i * data.width;
    const middle = data.times[i];
    const phase = data.phases.find((p) => p.begin <= middle && middle < p.end);
    return seconds(begin) + " to " + seconds(begin + data.width) + " s" + (phase ? ", " + phase.name : "");
  }

  // faults is a plugin that shades the times of the faults and writes their numbers, and their names where there is room.
  function faults(named) {
    const each = (u, f) => {
      u.ctx.save();
      for (const fault of data.faults) {
        f(u.ctx, fault, u.valToPos(fault.begin, "x", true), u.valToPos(fault.end, "x", true), u.bbox, devicePixelRatio);
      }
      u.ctx.restore();
    };
    const shade = (ctx, _, left, right, box, ratio) => {
      ctx.fillStyle = color("fault");
      ctx.fillRect(left, box.top, right - left, box.height);
      ctx.fillStyle = color("edge");
      ctx.fillRect(left, box.top, ratio, box.height);
      ctx.fillRect(right - ratio, box.top, ratio, box.height);
    };
    const name = (ctx, fault, left, right, box, ratio) => {
      ctx.font = 11 * ratio + "px system-ui, sans-serif";
      ctx.textAlign = "left";
      ctx.textBaseline = "top";
      ctx.fillStyle = color("text");
      const long = fault.number + " " + fault.name;
      const fits = ctx.measureText(long).width < right - left - 6 * ratio;
      ctx.fillText(fits ? long : String(fault.number), left + 3 * ratio, box.top + 3 * ratio);
    };
    return { hooks: { drawClear: (u) => each(u, shade), drawAxes: (u) => named && each(u, name) } };
  }

  function axis(more) {
    return Object.assign({
      stroke: () => color("quiet"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: () => color("grid"), width: 1 },
      ticks: { stroke: () => color("grid"), width: 1, size: 4 },
      gap: 3,
    }, more);
  }

  // draw makes one plot in an element.
  function draw(parent, { series, values, y, yAxis, height, named, xLabels, markers }) {
    const u = new uPlot({
      width: parent.clientWidth,
      height: height + (xLabels ? 34 : 12),
      padding: [8, 16, xLabels ? 0 : 4, 0],
      scales: { x: { time: false, range: () => [0, data.end] }, y },
      axes: [
        axis({ show: xLabels, size: 30, space: 55, values: (_, splits) => splits.map((v) => seconds(v) + " s") }),
        axis(Object.assign({ size: axisWidth }, yAxis)),
      ],
      series: [{ label: "time", value: (_, v, __, i) => (i == null ? "–" : when(i)) }].concat(series),
      legend: { markers },
      cursor: {
        y: false,
        drag: { x: false, y: false, setScale: false },
        sync: { key: "time", setSeries: false },
        points: { size: 7 },
      },
      focus: { alpha: 1 },
      plugins: [faults(named)],
    }, [data.times].concat(values), parent);
    plots.push({ u, parent, height: u.height });
  }

  // alone shows a point where no line can be seen, because there is nothing before and after it.
  function alone(u, index) {
    const v = u.data[index];
    const found = [];
    v.forEach((value, i) => {
      if (value != null && v[i - 1] == null && v[i + 1] == null) found.push(i);
    });
    return found;
  }

  function drawLines(parent, chart, height) {
    const unit = units[chart.unit];
    const y = chart.log
      ? { distr: 3, range: (_, min, max) => [0.001, Math.max(1, 10 ** Math.ceil(Math.log10(max || 1)))] }
      : { range: (_, __, max) => [0, (max || 1) * 1.18] }; // room for the numbers of the faults
    const yAxis = chart.log
      ? { splits: (_, __, min, max) => [0.001, 0.01, 0.1, 1, 10, 100, 1000].filter((v) => v <= max * 1.01), values: (_, splits) => splits.map(units.s) }
      : { values: (_, splits) => splits.map((v) => seconds(v) + (chart.unit === "s" ? " s" : "")) };
    draw(parent, {
      height, named: true, xLabels: true, y, yAxis,
      values: chart.columns.map((c) => c.figures),
      series: chart.columns.map((c) => ({
        label: c.label,
        stroke: () => color("p" + c.program),
        width: looks[c.program].width,
        dash: looks[c.program].dash,
        points: { show: true, size: 4, fill: () => color("p" + c.program), filter: alone },
        value: (_, v, __, i) => (v != null ? unit(v) : i == null ? "–" : "none"),
      })),
      markers: {
        width: 3,
        stroke: (_, i) => color("p" + chart.columns[i - 1].program),
        dash: (_, i) => looks[chart.columns[i - 1].program].border,
      },
    });
  }

  // drawLanes draws bars, with a lane for each program: errors, and on top of them what is unknown.
  function drawLanes(parent, chart, height) {
    const top = Math.max(1, ...chart.columns.flatMap((c) => c.figures));
    const bars = uPlot.paths.bars({ size: [1, 100] });
    for (let program = 0; program < data.programs.length; program++) {
      const [errors, unknown] = chart.columns.filter((c) => c.program === program);
      const name = document.createElement("p");
      name.className = "lane";
      const sum = (c) => c.figures.reduce((a, b) => a + b, 0);
      name.textContent = data.programs[program] + ": " + sum(errors) + " errors, " + sum(unknown) + " unknown";
      const lane = document.createElement("div");
      lane.className = "bars";
      parent.append(name, lane);
      const fills = [null, "unknown", "p" + program];
      const value = (figures) => (_, v, __, i) => (i == null ? "–" : String(figures[i]));
      const fill = (i) => () => color(fills[i]);
      draw(lane, {
        height: height / 3, named: program === 0, xLabels: program === data.programs.length - 1,
        y: { range: () => [0, top * 1.25] },
        yAxis: { space: 25, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] },
        values: [errors.figures.map((n, i) => n + unknown.figures[i]), errors.figures],
        series: [
          { label: "unknown", fill: fill(1), width: 0, paths: bars, points: { show: false }, value: value(unknown.figures) },
          { label: "errors", fill: fill(2), width: 0, paths: bars, points: { show: false }, value: value(errors.figures) },
        ],
        markers: { width: 0, fill: (_, i) => color(fills[i]) },
      });
    }
  }

  function drawAll() {
    for (const p of plots) p.u.destroy();
    plots = [];
    const height = innerWidth < 640 ? 180 : 230;
    for (const chart of data.charts) {
      const parent = document.querySelector("#" + chart.id + " .plot");
      parent.replaceChildren();
      (chart.lanes ? drawLanes : drawLines)(parent, chart, height);
    }
  }

  drawAll();
  new ResizeObserver(() => {
    for (const { u, parent, height } of plots) {
      if (parent.clientWidth > 0 && parent.clientWidth !== u.width) u.setSize({ width: parent.clientWidth, height });
    }
  }).observe(document.querySelector("main"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
