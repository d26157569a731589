"use strict";
// The table, its filters, and the panel of the chosen row.

const ROW_HEIGHT = 34; // pixels, as in the style: only the rows in sight are in the document
const NUMBER = (digits) => (value) => value.toFixed(digits);
const PERCENT = (value) => `${Math.round(100 * value)} %`;
const PLAIN = (value) => String(value);

// Name, heading, width in pixels, text of a value, explanation.
const COLUMNS = {
  crystal: [
    ["rank", "#", 48, PLAIN, "Place among the candidates, the lowest above the hull first"],
    ["formula", "Formula", 128, null, "Reduced formula"],
    ["energy_above_hull", "E hull", 82, NUMBER(3), "Energy above hull, eV/atom, by the potential; * not converged: an upper bound"],
    ["energy_above_lowest", "dE", 76, NUMBER(3), "Above the lowest structure of the formula, eV/atom, by the same potential"],
    ["num_found", "Found", 72, PLAIN, "Samples that ended in it"],
    ["known_as", "Known as", 130, PLAIN, "Reference structures that are this one"],
    ["metastable_probability", "P", 60, PERCENT, "Probability that DFT puts it below 0.1 eV/atom"],
    ["space_group", "Space group", 122, (n) => `${DATA.groups[n] ?? ""} (${n})`, "At 0.1 Å; of the relaxed structure if there is one"],
    ["coverage", "Coverage", 98, null, "Sub-systems with known phases, of all"],
    ["confirm_energy_above_hull", "2nd hull", 94, NUMBER(3), "Energy above hull by the second potential, eV/atom"],
    ["dft_energy_above_hull", "DFT hull", 94, NUMBER(3), "Energy above hull by DFT, eV/atom"],
    ["formation_energy_per_atom", "E form", 86, NUMBER(3), "Formation energy, eV/atom"],
    ["density", "Density", 88, NUMBER(2), "g/cm³"],
    ["volume_per_atom", "V/atom", 84, NUMBER(1), "Å³"],
    ["num_atoms", "Atoms", 76, PLAIN, "In the cell"],
    ["novelty", "Novelty", 126, PLAIN, "Relaxed: structure in the training set; formula there or in the hull's table; or new"],
    ["neutral_by", "Charges", 82, PLAIN, "Balanced by SMACT's rule, its mixed-valence rule, pymatgen's guess, or none"],
    ["flags", "Passed", 132, null, "Which checks it passed"],
    ["outcome", "Relaxation", 120, PLAIN, "How it ended"],
    ["id", "Id", 170, PLAIN, "Checkpoint, seed, number"],
  ],
  molecule: [
    ["formula", "Formula", 128, null, ""],
    ["smiles", "SMILES", 230, PLAIN, "Without stereo and explicit hydrogens"],
    ["num_atoms", "Atoms", 76, PLAIN, "Hydrogen included"],
    ["num_heavy_atoms", "Heavy", 78, PLAIN, "Atoms but hydrogen"],
    ["flags", "Passed", 150, null, "Which checks it passed"],
    ["checks_passed", "PoseBusters", 116, null, "Checks passed, of all"],
    ["problem", "Problem", 170, PLAIN, ""],
    ["id", "Id", 170, PLAIN, "Checkpoint, seed, number"],
  ],
};
const FLAGS = {
  crystal: [["structure_valid", "valid"], ["composition_valid", "SMACT"], ["unique", "unique"],
    ["novel", "novel"], ["converged", "converged"]],
  molecule: [["rdkit_valid", "RDKit"], ["strict_valid", "strict"], ["posebusters", "PoseBusters"],
    ["unique", "unique"], ["novel", "novel"]],
};

const state = {
  kind: "crystal", rows: { crystal: [], molecule: [] }, shown: [], chosen: null,
  sort: null, descending: false, flags: new Set(), stage: -1,
};
const byId = (id) => document.getElementById(id);

function columns() {
  const found = COLUMNS[state.kind].filter(([name]) => name === "flags"
    || state.rows[state.kind].some((row) => row[name] !== null && row[name] !== undefined));
  return DATA.sets.length > 1 ? [["set", "Set", 110, (i) => DATA.sets[i].name, ""], ...found] : found;
}

function prepare(row) {
  if (row.num_subsystems) row.coverage = row.num_subsystems_covered / row.num_subsystems;
  if (row.checks) row.posebusters = row.checks_passed === row.checks;
  row.hull = hullOf(row);
  row.flags = FLAGS[row.kind].filter(([name]) => row[name] === true).length;
  row.text = [row.formula, row.id, row.name, row.smiles, row.outcome, row.problem,
    DATA.groups[row.space_group]?.normalize("NFKD"), row.elements.join("-")].join(" ").toLowerCase();
}

function passes(row, words, limit) {
  // Not known is not low: null <= 0.1 is true.
  const energy = row.energy_above_hull ?? Infinity;
  if (limit !== null && energy > limit) return false;
  for (const flag of state.flags) {
    if (flag === "rank" ? !row.rank : row[flag] !== true) return false;
  }
  return words.every((word) => (DATA.symbols.includes(word)
    ? row.elements.includes(word) : row.text.includes(word.toLowerCase())));
}

function update() {
  const words = byId("search").value.split(/[\s,]+/).filter(Boolean);
  const text = state.kind === "crystal" ? byId("max-energy").value : "";
  const limit = text === "" ? null : Number(text) + 1e-9;
  state.shown = state.rows[state.kind].filter((row) => passes(row, words, limit));
  const { sort, descending } = state;
  if (sort) state.shown.sort((a, b) => compare(a[sort], b[sort], descending));
  const total = state.rows[state.kind].length;
  byId("count").textContent = `${state.shown.length} of ${total}`;
  byId("grid").scrollTop = 0;
  drawRows();
  drawCharts(state.kind, state.shown);
}

function compare(a, b, descending) {
  const missing = (a === null || a === undefined) - (b === null || b === undefined);
  if (missing || a === b || a === null || a === undefined) return missing; // no value: at the end
  const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
  return descending ? -order : order;
}

function drawHead() {
  const shown = columns();
  byId("cols").replaceChildren(...shown.map(([, , width]) => element("col", { style: `width:${width}px` })));
  byId("grid").firstElementChild.style.minWidth = `${shown.reduce((sum, each) => sum + each[2], 0)}px`;
  byId("head").replaceChildren(...shown.map(([name, heading, , , title]) => {
    const sorted = state.sort === name ? (state.descending ? "descending" : "ascending") : "none";
    const sortBy = () => {
      state.descending = state.sort === name && !state.descending;
      state.sort = name;
      drawHead();
      update();
    };
    return element("th", { "aria-sort": sorted, scope: "col" },
      element("button", { type: "button", title, onclick: sortBy, "data-column": name }, heading));
  }));
}

// The rows in sight, and empty ones as high as what is above and below them.
function drawRows() {
  const grid = byId("grid");
  const first = Math.max(0, Math.floor(grid.scrollTop / ROW_HEIGHT) - 8);
  const last = Math.min(state.shown.length, first + Math.ceil(grid.clientHeight / ROW_HEIGHT) + 16);
  const gap = (num) => {
    const row = element("tr", { "aria-hidden": "true" });
    row.style.height = `${num * ROW_HEIGHT}px`;
    return row;
  };
  const shown = columns();
  const rows = state.shown.slice(first, last).map((row, i) => drawRow(row, first + i, shown));
  byId("body").replaceChildren(gap(first), ...rows, gap(state.shown.length - last));
  grid.setAttribute("aria-rowcount", state.shown.length);
  const place = state.shown.indexOf(state.chosen);
  grid.setAttribute("aria-activedescendant", place >= first && place < last ? `row-${place}` : "");
}

function drawRow(row, place, shown) {
  const chosen = row === state.chosen;
  return element("tr", {
    id: `row-${place}`, role: "row", "aria-rowindex": place + 1, "aria-selected": String(chosen),
    onclick: () => choose(row, true),
  }, ...shown.map((column) => drawCell_(row, column)));
}

function drawCell_(row, [name, , , show]) {
  const value = row[name];
  if (name === "formula") return element("td", { title: value }, formulaNode(value));
  if (name === "flags") return element("td", {}, flagMarks(row));
  if (value === null || value === undefined) return element("td", { class: "quiet" }, "–");
  let text;
  if (name === "coverage") text = `${row.num_subsystems_covered}/${row.num_subsystems}`;
  else if (name === "checks_passed") text = `${value}/${row.checks}`;
  else text = show(value);
  if (name === "energy_above_hull" && row.converged === false) text += "*";
  return element("td", { class: typeof value === "number" && name !== "set" ? "number" : "", title: text }, text);
}

function flagMarks(row) {
  const words = { true: "yes", false: "no" };
  return element("span", { class: "marks" }, ...FLAGS[row.kind].map(([name, label]) => element("i", {
    class: words[row[name]] ?? "unknown", title: `${label}: ${words[row[name]] ?? "not asked"}`,
  }, label[0].toUpperCase())));
}

function choose(row, open) {
  state.chosen = row;
  state.stage = -1;
  const panel = byId("panel");
  if (row && (open || matchMedia("(min-width: 900px)").matches)) panel.hidden = false;
  drawRows();
  if (row && !panel.hidden) drawPanel(row);
}

function move(step) {
  if (!state.shown.length) return;
  const place = state.shown.indexOf(state.chosen);
  const next = Math.max(0, Math.min(state.shown.length - 1, place < 0 ? 0 : place + step));
  const grid = byId("grid");
  const top = next * ROW_HEIGHT;
  const room = grid.clientHeight - 2 * ROW_HEIGHT; // below the heading
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top > grid.scrollTop + room) grid.scrollTop = top - room;
  choose(state.shown[next], false);
}

function onKey(event) {
  const page = Math.floor(byId("grid").clientHeight / ROW_HEIGHT) - 2;
  const steps = {
    ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity,
  };
  if (event.target !== byId("grid")) return;
  if (event.key in steps) move(steps[event.key]);
  else if (event.key === "Enter" && state.chosen) {
    choose(state.chosen, true);
    byId("panel").focus();
  } else return;
  event.preventDefault();
}

function drawFilters() {
  const kind = state.kind;
  const names = [...(kind === "crystal" ? [["rank", "candidates"]] : []), ...FLAGS[kind]];
  const useful = names.filter(([name]) => state.rows[kind].some((row) => row[name]));
  byId("flags").replaceChildren(...useful.map(([name, label]) => {
    const toggle = (event) => {
      if (!state.flags.delete(name)) state.flags.add(name);
      event.currentTarget.setAttribute("aria-pressed", String(state.flags.has(name)));
      update();
    };
    return element("button", { type: "button", class: "chip", "aria-pressed": "false", onclick: toggle, "data-flag": name }, label);
  }));
  const energies = state.rows[kind].some((row) => row.energy_above_hull !== undefined && row.energy_above_hull !== null);
  byId("limit").hidden = !energies;
}

function showKind(kind) {
  // Crystals come in the order of the ranking; of molecules what passed most is first.
  const molecules = kind === "molecule";
  Object.assign(state, { kind, sort: molecules ? "flags" : null, descending: molecules });
  state.flags.clear();
  for (const button of byId("kinds").children) {
    button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
  }
  drawFilters();
  drawHead();
  update();
  choose(state.shown[0] ?? null, false);
}

function start() {
  document.title = `${DATA.title} – adit report`;
  byId("title").textContent = DATA.title;
  byId("made").textContent = `Written ${DATA.made}`;
  const notes = DATA.sets.flatMap((set) => set.notes.map((note) => (
    DATA.sets.length > 1 ? `${set.name}: ${note}` : note)));
  byId("notes").replaceChildren(...notes.map((note) => element("p", { class: "note" }, note)));
  for (const kind of KINDS) {
    state.rows[kind] = rowsOf(kind);
    state.rows[kind].forEach(prepare);
  }
  const kinds = KINDS.filter((kind) => state.rows[kind].length);
  byId("kinds").replaceChildren(...kinds.map((kind) => element("button", {
    type: "button", "data-kind": kind, onclick: () => showKind(kind),
  }, `${state.rows[kind].length} ${kind}${state.rows[kind].length === 1 ? "" : "s"}`)));
  byId("kinds").hidden = kinds.length < 2;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("search").addEventListener("input", update);
  byId("max-energy").addEventListener("input", update);
  byId("grid").addEventListener("scroll", () => requestAnimationFrame(drawRows));
  byId("grid").addEventListener("keydown", onKey);
  byId("csv").addEventListener("click", () => download("table.csv", asCsv(state.shown, DATA.tables[state.kind].columns)));
  byId("theme").addEventListener("click", () => {
    document.documentElement.style.colorScheme = dark() ? "light" : "dark";
    if (state.chosen && !byId("panel").hidden) drawPanel(state.chosen);
  });
  addEventListener("resize", drawRows);
  startPanel();
  showKind(kinds[0] ?? "crystal");
}

start();
