"use strict";
// Hulls of two and three elements: stable phases of the reference, and the candidates among them.

const NEAR = 0.1; // eV/atom above the hull: the limit of what is called metastable
let hullChosen = 0;

const HULLS = new Map(DATA.hulls.map((hull) => [hull.elements.join("-"), hull]));
const MAX_MARKS = 300; // of the lowest in a picture

// The picture that a row has a place in.
function hullOf(row) {
  const placed = typeof row.energy_above_hull === "number"
    && typeof row.formation_energy_per_atom === "number" && row.structures.length;
  return placed ? HULLS.get([...row.elements].sort().join("-")) : undefined;
}

// Atomic fractions of a row in a system.
function fractionsIn(hull, row) {
  const names = symbols(row.structures[row.structures.length - 1]);
  return hull.elements.map((symbol) => names.filter((n) => n === symbol).length / names.length);
}

function rowsIn(hull, rows) {
  return rows.filter((row) => row.hull === hull)
    .sort((a, b) => a.energy_above_hull - b.energy_above_hull).slice(0, MAX_MARKS);
}

function hullCard(rows) {
  const present = new Set(rows.map((row) => row.hull));
  const systems = DATA.hulls.filter((hull) => present.has(hull));
  if (!systems.length) return null;
  const select = element("select", { "aria-label": "Chemical system" }, ...systems.map((hull, i) => (
    element("option", { value: i }, hull.elements.join("-")))));
  const place = element("div");
  const draw = () => {
    hullChosen = Number(select.value);
    place.replaceChildren(drawHull(systems[hullChosen], rows));
  };
  select.value = String(Math.min(hullChosen, systems.length - 1));
  select.addEventListener("change", draw);
  draw();
  return card("Hull of a chemical system ", select, place, hullLegend());
}

function hullLegend() {
  const marks = [["stable phase of the reference", "var(--ink)"], ["candidate below 0.1 eV/atom", "var(--good)"],
    ["above", "var(--bad)"]];
  return element("p", { class: "legend" }, ...marks.map(([name, colour]) => {
    const swatch = element("i", { class: "round" });
    swatch.style.background = colour;
    return element("span", {}, swatch, name);
  }));
}

function drawOwnHull(box, row) {
  box.replaceChildren(...(row.hull ? [drawHull(row.hull, state.rows.crystal, row), hullLegend()] : []));
}

function drawHull(hull, rows, chosen) {
  const found = rowsIn(hull, rows).map((row) => ({ row, x: fractionsIn(hull, row) }));
  const draw = hull.elements.length === 2 ? drawBinary : drawTernary;
  return draw(hull, found, chosen);
}

function mark(at, row, chosen) {
  const near = row.energy_above_hull < NEAR;
  const made = svg("circle", {
    cx: at[0], cy: at[1], r: row === chosen ? 7 : 5, fill: near ? "var(--good)" : "var(--bad)",
    class: row === chosen ? "candidate chosen" : "candidate",
  });
  made.append(svg("title", {}, `${row.formula}: ${row.energy_above_hull.toFixed(3)} eV/atom above the hull (${row.id})`));
  made.addEventListener("click", () => choose(row, true));
  return made;
}

function phaseMark(at, phase) {
  const made = svg("circle", { cx: at[0], cy: at[1], r: 4, class: "phase" });
  made.append(svg("title", {}, `${phase.formula}: ${phase.e.toFixed(3)} eV/atom`));
  return made;
}

// Formation energy against the share of the second element.
function drawBinary(hull, found, chosen) {
  const [width, height, left, right, top, bottom] = [460, 270, 46, 20, 16, 40];
  const energies = [...hull.phases.map((p) => p.e), ...found.map(({ row }) => row.formation_energy_per_atom), 0];
  const [low, high] = [Math.min(...energies), Math.max(...energies)];
  const span = Math.max(high - low, 0.05);
  const x = (share) => left + share * (width - left - right);
  const y = (e) => top + ((high + 0.06 * span - e) / (1.18 * span)) * (height - top - bottom);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart hull", role: "img" });
  const step = niceStep(span / 4);
  for (let e = Math.ceil(low / step) * step; e <= high + 1e-9; e += step) {
    picture.append(svg("line", { x1: left, x2: width - right, y1: y(e), y2: y(e), class: "grid" }),
      svg("text", { x: left - 5, y: y(e) + 4, "text-anchor": "end" }, Number(e.toFixed(3))));
  }
  const points = hull.phases.map((phase) => [x(phase.x[1]), y(phase.e)]);
  hull.edges.forEach(([i, j]) => picture.append(svg("line", {
    x1: points[i][0], y1: points[i][1], x2: points[j][0], y2: points[j][1], class: "tie" })));
  hull.phases.forEach((phase, i) => {
    const pure = phase.x.includes(1);
    picture.append(phaseMark(points[i], phase));
    const at = pure ? height - bottom + 18 : points[i][1] + 17;
    picture.append(svg("text", { x: points[i][0], y: at, "text-anchor": "middle" }, phase.formula));
  });
  found.forEach(({ row, x: share }) => picture.append(mark([x(share[1]), y(row.formation_energy_per_atom)], row, chosen)));
  picture.append(svg("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" },
    `share of ${hull.elements[1]}; formation energy in eV/atom`));
  return picture;
}

// Compositions in a triangle, lines between phases that coexist.
function drawTernary(hull, found, chosen) {
  const [width, height, side] = [460, 390, 370];
  const corners = [[45, 350], [45 + side, 350], [45 + side / 2, 350 - (side * Math.sqrt(3)) / 2]];
  const at = (x) => [0, 1].map((k) => x.reduce((sum, share, i) => sum + share * corners[i][k], 0));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart hull", role: "img" });
  const points = hull.phases.map((phase) => at(phase.x));
  hull.edges.forEach(([i, j]) => picture.append(svg("line", {
    x1: points[i][0], y1: points[i][1], x2: points[j][0], y2: points[j][1], class: "tie" })));
  const taken = [];
  hull.phases.forEach((phase, i) => {
    picture.append(phaseMark(points[i], phase));
    const pure = phase.x.includes(1);
    const [px, py] = points[i];
    const place = [px, pure ? (py > 300 ? py + 20 : py - 10) : py - 8];
    // Labels that would lie on one another are left to the tooltips.
    const free = taken.every(([tx, ty]) => Math.abs(tx - place[0]) > 48 || Math.abs(ty - place[1]) > 13);
    if (!pure && !free) return;
    taken.push(place);
    picture.append(svg("text", { x: place[0], y: place[1], "text-anchor": "middle", class: pure ? "corner" : "" }, phase.formula));
  });
  found.forEach(({ row, x }) => picture.append(mark(at(x), row, chosen)));
  return picture;
}
