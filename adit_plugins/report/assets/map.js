"use strict";
// Where the structures lie in the latent space of the network, over the density of its training set.

const MAP_SIDE = 300;

function mapCard(kind, rows) {
  const placed = rows.filter((row) => typeof row.latent_1 === "number");
  if (!placed.length) return null;
  const { extent, counts, variance_shares: shares } = DATA.training.latents[kind];
  const [left, right, bottom, top] = around(extent, placed);
  const x = (v) => 34 + ((v - left) / (right - left)) * (MAP_SIDE - 40);
  const y = (v) => MAP_SIDE - 34 - ((v - bottom) / (top - bottom)) * (MAP_SIDE - 40);
  const picture = svg("svg", { viewBox: `0 0 ${MAP_SIDE} ${MAP_SIDE}`, class: "chart map", role: "img" });
  picture.append(...densityCells(extent, counts, x, y));
  const mid = MAP_SIDE / 2;
  const axis = (n) => `component ${n} (${Math.round(100 * shares[n - 1])} % of the variance)`;
  picture.append(svg("text", { x: mid, y: MAP_SIDE - 8, "text-anchor": "middle" }, axis(1)),
    svg("text", { x: 14, y: mid, "text-anchor": "middle", transform: `rotate(-90 14 ${mid})` }, axis(2)));
  for (const row of placed) {
    const dot = svg("circle", {
      cx: x(row.latent_1), cy: y(row.latent_2), r: 3, fill: SET_COLOURS[row.set % 4], class: "dot",
    });
    dot.append(svg("title", {}, `${row.formula} (${row.id})`));
    dot.addEventListener("click", () => choose(row, true));
    picture.append(dot);
  }
  const beyond = rows.length - placed.length;
  return card("Latent space, means over the atoms", picture, legend(true),
    beyond ? element("p", { class: "quiet" }, `${beyond} of the rows are not on the map.`) : null);
}

// The training set's range, wide enough for all that is shown.
function around(extent, rows) {
  const xs = rows.map((row) => row.latent_1);
  const ys = rows.map((row) => row.latent_2);
  return [Math.min(extent[0], ...xs), Math.max(extent[1], ...xs),
    Math.min(extent[2], ...ys), Math.max(extent[3], ...ys)];
}

function densityCells(extent, counts, x, y) {
  const most = Math.max(...counts.flat());
  const [left, right, bottom, top] = extent;
  const [width, height] = [(right - left) / counts.length, (top - bottom) / counts[0].length];
  return counts.flatMap((column, i) => column.map((count, j) => {
    if (!count) return null;
    const [x0, y1] = [left + i * width, bottom + (j + 1) * height];
    return svg("rect", {
      x: x(x0), y: y(y1), width: x(x0 + width) - x(x0) + 0.3, height: y(y1 - height) - y(y1) + 0.3,
      fill: "var(--ink)", "fill-opacity": (0.04 + 0.5 * (Math.log1p(count) / Math.log1p(most))).toFixed(2),
    });
  })).filter(Boolean);
}
