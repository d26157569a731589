"use strict";
// Funnel, histograms and the periodic table, of the rows that the filters leave.

const SVG = "http://www.w3.org/2000/svg"; // a name, not an address
const SET_COLOURS = ["var(--first)", "var(--second)", "var(--third)", "var(--fourth)"];
// With the last space group of each; short enough for the axis.
const CRYSTAL_SYSTEMS = [["triclinic", 2], ["monocl.", 15], ["orthorh.", 74], ["tetrag.", 142],
  ["trigonal", 167], ["hexag.", 194], ["cubic", 230]];
const BINS = 24;

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function card(title, ...children) {
  return element("figure", {}, element("figcaption", {}, title), ...children.filter(Boolean));
}

function drawCharts(kind, rows) {
  const found = [funnelCard(kind)];
  if (kind === "crystal") {
    found.push(hullCard(rows),
      histogram("Energy above hull", "eV/atom", rows, "energy_above_hull", { low: 0 }),
      histogram("Density", "g/cm³", rows, "density", { training: densityShares }),
      integers("Atoms in the cell", rows, "num_atoms", DATA.training.num_atoms),
      systemsCard(rows));
  } else {
    found.push(integers("Atoms", rows, "num_atoms"), integers("Heavy atoms", rows, "num_heavy_atoms"),
      checksCard(rows));
  }
  found.push(mapCard(kind, rows), elementsCard(kind, rows));
  document.getElementById("charts").replaceChildren(...found.filter(Boolean));
}

// Counts with their denominators, of all structures whatever the filters.
function funnelCard(kind) {
  const sets = DATA.sets.map((set, i) => [set, i]).filter(([set]) => set.funnels[kind]);
  if (!sets.length) return null;
  const names = [...new Set(sets.flatMap(([set]) => set.funnels[kind].map((rate) => rate.name)))];
  const lines = names.flatMap((name) => [
    element("dt", {}, name),
    ...sets.map(([set, i]) => {
      const rate = set.funnels[kind].find((each) => each.name === name);
      if (!rate) return element("dd", { class: "quiet" }, "–");
      const share = rate.denominator ? rate.numerator / rate.denominator : 0;
      const bar = element("span", { class: "bar" });
      bar.style.width = `${100 * share}%`;
      bar.style.background = SET_COLOURS[i % 4];
      return element("dd", { title: `${set.name}: ${rate.numerator} of ${rate.denominator} ${rate.of}` },
        bar, element("span", {}, `${rate.numerator}/${rate.denominator}`));
    }),
  ]);
  return card("Funnel",
    element("dl", { class: "funnel" }, ...lines), legend());
}

function legend(training) {
  const marks = DATA.sets.length > 1
    ? DATA.sets.map((set, i) => [set.name, SET_COLOURS[i % 4], set.totals[state.kind]]).filter((each) => each[2])
    : [];
  if (training) marks.push(["training set", "var(--ink)"]);
  return marks.length ? element("p", { class: "legend" }, ...marks.map(([name, colour]) => {
    const swatch = element("i");
    swatch.style.background = colour;
    return element("span", {}, swatch, name);
  })) : null;
}

function valuesBySet(rows, name) {
  return DATA.sets.map((_, i) => rows.filter((row) => row.set === i)
    .map((row) => row[name]).filter((v) => typeof v === "number"));
}

// Share of the training set's densities in each bin, from their quantiles.
function densityShares(edges) {
  const values = DATA.training.density;
  return edges.slice(1).map((edge, i) => (
    values.filter((v) => v >= edges[i] && v < edge).length / values.length));
}

function histogram(title, unit, rows, name, { low, training } = {}) {
  const sets = valuesBySet(rows, name);
  const all = sets.flat().sort((a, b) => a - b);
  if (!all.length) return null;
  const bottom = Math.min(low ?? all[0], all[0]);
  // One far value would press the rest into one bar.
  const top = Math.max(all.length < 100 ? all[all.length - 1] : all[Math.floor(0.99 * all.length)], bottom + 1e-3);
  const step = niceStep((top - bottom) / BINS);
  const begin = Math.floor(bottom / step) * step;
  const num = Math.max(1, Math.ceil((top - begin) / step + 1e-9));
  const edges = Array.from({ length: num + 1 }, (_, i) => begin + i * step);
  const shares = sets.map((values) => {
    const counts = Array(num).fill(0);
    values.forEach((v) => { counts[Math.min(num - 1, Math.max(0, Math.floor((v - begin) / step)))] += 1; });
    return counts;
  });
  const above = all.filter((v) => v > edges[num]).length;
  const labels = edges.map((edge) => Number(edge.toFixed(6)));
  const note = above ? element("p", { class: "quiet" }, `${above} beyond ${labels[num]} ${unit} are in the last bar.`) : null;
  return card(`${title}, ${unit}`, bars(shares, labels, training ? training(edges) : null, true),
    legend(Boolean(training)), note);
}

function niceStep(raw) {
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.999);
}

function integers(title, rows, name, training) {
  const sets = valuesBySet(rows, name);
  const all = sets.flat();
  if (!all.length) return null;
  const low = Math.min(...all);
  const num = Math.min(Math.max(...all) - low + 1, 400);
  const width = Math.ceil(num / 40);
  const groups = Array.from({ length: Math.ceil(num / width) }, (_, i) => low + i * width);
  const place = (v) => Math.min(groups.length - 1, Math.floor((v - low) / width));
  const counts = sets.map((values) => {
    const found = Array(groups.length).fill(0);
    values.forEach((v) => { found[place(v)] += 1; });
    return found;
  });
  let shares = null;
  if (training) {
    const total = Object.values(training).reduce((a, b) => a + b, 0);
    shares = Array(groups.length).fill(0);
    Object.entries(training).forEach(([key, count]) => {
      if (key >= low && key < low + groups.length * width) shares[place(Number(key))] += count / total;
    });
  }
  return card(title, bars(counts, groups, shares), legend(Boolean(training)));
}

function systemsCard(rows) {
  const system = (n) => CRYSTAL_SYSTEMS.findIndex(([, last]) => n <= last);
  const sets = valuesBySet(rows, "space_group");
  if (!sets.flat().length) return null;
  const counts = sets.map((values) => {
    const found = CRYSTAL_SYSTEMS.map(() => 0);
    values.forEach((n) => { found[system(n)] += 1; });
    return found;
  });
  const training = CRYSTAL_SYSTEMS.map(() => 0);
  const total = Object.values(DATA.training.space_group).reduce((a, b) => a + b, 0);
  Object.entries(DATA.training.space_group).forEach(([n, count]) => { training[system(n)] += count / total; });
  return card("Space groups by crystal system", bars(counts, CRYSTAL_SYSTEMS.map(([name]) => name), training), legend(true));
}

// Bars of counts side by side, and the training set's shares as a line over them.
function bars(sets, labels, training, edges = false) {
  const [width, height, left, bottom] = [460, 200, 42, 34];
  const num = sets[0].length;
  const totals = sets.map((counts) => Math.max(1, counts.reduce((a, b) => a + b, 0)));
  const shares = sets.map((counts, i) => counts.map((n) => n / totals[i]));
  const top = Math.max(1e-9, ...shares.flat(), ...(training ?? []));
  const x = (i) => left + (i * (width - left - 14)) / num;
  const y = (share) => (height - bottom) * (1 - (0.94 * share) / top);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
  for (const tick of [top / 2, top]) {
    picture.append(svg("line", { x1: left, x2: width, y1: y(tick), y2: y(tick), class: "grid" }),
      svg("text", { x: left - 4, y: y(tick) + 4, "text-anchor": "end" }, percentText(tick)));
  }
  const room = (x(1) - x(0)) * (edges ? 0.94 : 0.8);
  shares.forEach((values, s) => values.forEach((share, i) => {
    const bar = svg("rect", {
      x: x(i) + (x(1) - x(0) - room) / 2 + (s * room) / shares.length, y: y(share),
      width: room / shares.length, height: y(0) - y(share), fill: SET_COLOURS[s % 4],
    });
    const label = edges ? `${labels[i]} to ${labels[i + 1]}` : labels[i];
    bar.append(svg("title", {}, `${label}: ${sets[s][i]} of ${totals[s]}`));
    picture.append(bar);
  }));
  if (training) {
    const points = training.flatMap((share, i) => [`${x(i)},${y(share)}`, `${x(i + 1)},${y(share)}`]);
    picture.append(svg("polyline", { points: points.join(" "), class: "training" }));
  }
  const every = Math.ceil(labels.length / 9);
  labels.forEach((label, i) => {
    if (i % every) return;
    const at = edges ? x(i) : (x(i) + x(i + 1)) / 2;
    picture.append(svg("text", { x: at, y: height - bottom + 16, "text-anchor": "middle" },
      String(label)));
  });
  picture.append(svg("line", { x1: left, x2: width, y1: y(0), y2: y(0), class: "axis" }));
  return picture;
}

function percentText(share) {
  return `${share < 0.1 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;
}

// Which of PoseBusters' checks failed, and how often.
function checksCard(rows) {
  const counts = new Map();
  rows.forEach((row) => (row.checks_failed || []).forEach((name) => counts.set(name, (counts.get(name) ?? 0) + 1)));
  const asked = rows.filter((row) => row.checks).length;
  if (!counts.size) return null;
  const lines = [...counts].sort((a, b) => b[1] - a[1]).flatMap(([name, number]) => {
    const bar = element("span", { class: "bar" });
    bar.style.width = `${(100 * number) / asked}%`;
    bar.style.background = "var(--bad)";
    return [element("dt", {}, name.replaceAll("_", " ")),
      element("dd", {}, bar, element("span", {}, `${number}/${asked}`))];
  });
  return card("PoseBusters' checks that failed", element("dl", { class: "funnel" }, ...lines));
}

// Row and column of an element in the long form with the f block below.
function placeInTable(z) {
  if (z === 1) return [1, 1];
  if (z === 2) return [1, 18];
  if (z >= 57 && z <= 71) return [8, z - 53];
  if (z >= 89 && z <= 103) return [9, z - 85];
  const starts = [[2, 3], [3, 11], [4, 19], [5, 37], [6, 55], [7, 87]];
  const [row, first] = starts.findLast(([, start]) => z >= start);
  const n = z - first;
  if (row <= 3) return [row, n < 2 ? n + 1 : n + 11];
  if (row <= 5) return [row, n + 1];
  return [row, n < 2 ? n + 1 : n + 1 - 14];
}

function elementsCard(kind, rows) {
  const counts = new Map();
  rows.forEach((row) => row.elements.forEach((symbol) => counts.set(symbol, (counts.get(symbol) ?? 0) + 1)));
  if (!counts.size) return null;
  const most = Math.max(...counts.values());
  const trained = DATA.training.elements;
  const atoms = Object.values(trained).reduce((a, b) => a + b, 0);
  const search = document.getElementById("search");
  const cells = DATA.symbols.slice(1).map((symbol, i) => {
    const count = counts.get(symbol) ?? 0;
    const share = trained[symbol] ? `; ${((100 * trained[symbol]) / atoms).toFixed(2)} % of the training set's atoms` : "; not in the training set";
    const [row, column] = placeInTable(i + 1);
    const cell = element("button", {
      type: "button", "data-element": symbol, disabled: count ? undefined : "",
      title: `${symbol}: in ${count} of ${rows.length}${kind === "crystal" ? share : ""}`,
      onclick: () => {
        const words = search.value.split(/\s+/).filter(Boolean);
        search.value = (words.includes(symbol) ? words.filter((w) => w !== symbol) : [...words, symbol]).join(" ");
        update();
      },
    }, symbol, element("small", {}, count ? String(count) : ""));
    cell.style.gridArea = `${row} / ${column}`;
    const strength = count ? 12 + (78 * Math.log1p(count)) / Math.log1p(most) : 0;
    if (count) cell.style.background = `color-mix(in srgb, var(--first) ${strength}%, var(--paper))`;
    if (strength > 55) cell.classList.add("strong");
    return cell;
  });
  return card("Elements, by the structures that hold them; a click filters", element("div", { class: "periodic" }, ...cells));
}
