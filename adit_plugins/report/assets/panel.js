"use strict";
// The panel of the chosen structure: picture, downloads, facts, and how to make it again.

// Name, heading, text of a value.
const FACTS = {
  energy_above_hull: ["Energy above hull", (v) => `${v.toFixed(3)} eV/atom`],
  energy_above_lowest: ["Above the lowest", (v, row) => `${v.toFixed(3)} eV/atom by ${row.potential}`],
  num_found: ["Found", (v) => `by ${v} sample${v === 1 ? "" : "s"}`],
  known_as: ["Known as", (v) => v],
  metastable_probability: ["P (DFT below 0.1 eV/atom)", (v) => `${Math.round(100 * v)} %`],
  coverage: ["Coverage", (_, row) => `${row.num_subsystems_covered} of ${row.num_subsystems} sub-systems, ${row.num_reference_phases} phases`],
  formation_energy_per_atom: ["Formation energy", (v) => `${v.toFixed(3)} eV/atom`],
  raw_energy_above_hull: ["Above hull, raw", (v) => `${v.toFixed(3)} eV/atom without corrections of elements`],
  confirm_energy_above_hull: ["Above hull, second opinion", (v, row) => `${v.toFixed(3)} eV/atom (${row.confirm_potential ?? ""}); ${row.confirm_agrees ? "agrees" : "does not agree"} on 0.1 eV/atom`],
  dft_energy_above_hull: ["Above hull by DFT", (v, row) => `${v.toFixed(3)} eV/atom (${row.dft_engine ?? ""})`],
  prefilter_energy_above_hull: ["Above hull, pre-filter", (v) => `${v.toFixed(3)} eV/atom`],
  space_group: ["Space group", (v) => `${DATA.groups[v] ?? ""} (${v})`],
  density: ["Density", (v) => `${v.toFixed(2)} g/cm³`],
  volume_per_atom: ["Volume", (v) => `${v.toFixed(2)} Å³/atom`],
  num_atoms: ["Atoms", (v) => String(v)],
  outcome: ["Relaxation", (v, row) => `${v}, ${row.num_steps} steps of ${row.potential}`],
  rmsd: ["Atoms moved", (v) => `${v.toFixed(2)} Å (RMS)`],
  volume_change: ["Volume changed", (v) => `${v > 0 ? "+" : ""}${(100 * v).toFixed(1)} %`],
  smiles: ["SMILES", (v) => v],
  duplicate_of: ["Duplicate of", (v) => v],
  source: ["Hull", (v) => v],
  id: ["Id", (v) => v],
  name: ["Read from", (v) => v],
};

function drawPanel(row) {
  byId("name").replaceChildren(formulaNode(row.formula));
  const structures = row.structures;
  const view = byId("view");
  const has = structures.length > 0;
  view.hidden = byId("controls").hidden = byId("legend").hidden = !has;
  if (has) {
    drawStages(row);
    drawPicture(row);
  }
  drawProblem(row);
  const facts = Object.entries(FACTS).filter(([name]) => row[name] !== null && row[name] !== undefined);
  byId("facts").replaceChildren(...facts.flatMap(([name, [heading, show]]) => [
    element("dt", {}, heading), element("dd", {}, show(row[name], row))]),
  element("dt", {}, "Checks"), element("dd", { class: "checks" }, ...checkWords(row)));
  drawAgain(row);
  drawOwnHull(byId("own-hull"), row);
}

function checkWords(row) {
  const asked = FLAGS[row.kind].filter(([name]) => typeof row[name] === "boolean");
  return asked.map(([name, label]) => element("span", { class: row[name] ? "chip yes" : "chip no" },
    `${row[name] ? "✓" : "✗"} ${label}`));
}

function drawProblem(row) {
  const failed = row.checks_failed || [];
  const marks = failed.map((name) => element("span", { class: "chip no" }, name.replaceAll("_", " ")));
  const texts = [row.problem, row.hull_problem].filter(Boolean).join("; ");
  byId("problem").replaceChildren(texts,
    ...(marks.length ? [element("span", { class: "quiet" }, " PoseBusters failed: "), ...marks] : []),
    ...(row.structures.some((each) => each.m) ? [element("span", { class: "quiet" }, " red in the picture")] : []));
}

// Which of the structures are drawn: as it came, relaxed, or both.
function drawStages(row) {
  const choices = row.structures.length > 1
    ? [["Unrelaxed", 0], ["Relaxed", 1], ["Both", 2]] : [];
  if (state.stage < 0) state.stage = row.structures.length - 1;
  byId("stages").replaceChildren(...choices.map(([label, stage]) => element("button", {
    type: "button", class: "chip", "aria-pressed": String(state.stage === stage),
    onclick: () => { state.stage = stage; drawStages(row); drawPicture(row); },
  }, label)));
}

function drawPicture(row) {
  const structures = state.stage === 2 ? row.structures : [row.structures[state.stage]];
  const structure = structures[structures.length - 1];
  byId("repeat").hidden = !structure.l;
  drawStructures(structures, Number(byId("cells").value));
  drawLegend(byId("legend"), structure);
  byId("downloads").replaceChildren(...formatsOf(structure).map(([label, suffix, write]) => element("button", {
    type: "button", class: "chip", "data-format": label, title: `Download as ${label}`,
    onclick: () => download(safeName(`${row.rank ? `${row.rank}-` : ""}${row.formula}`) + suffix, write(row, structure)),
  }, `↓ ${label}`)));
}

// The command line that makes this sample again, and the one of the whole campaign.
function drawAgain(row) {
  const set = DATA.sets[row.set];
  const command = set.commands[row.kind];
  const lines = [];
  if (command) lines.push(["Make it again", command.replace("{id}", () => quoted(row.id))]);
  if (set.command) lines.push(["The whole campaign", set.command]);
  byId("again").replaceChildren(...lines.map(([heading, text]) => element("div", {},
    element("span", { class: "quiet" }, heading),
    element("button", { type: "button", class: "chip", onclick: (event) => copy(event.currentTarget, text) }, "Copy"),
    element("pre", {}, text))));
}

// For a POSIX shell.
function quoted(text) {
  return /^[\w./:+-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`;
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch (error) { // not allowed for a page from disk in every browser
    getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
    button.textContent = "Selected";
  }
}

function startPanel() {
  byId("cells").addEventListener("change", () => drawPicture(state.chosen));
  const close = () => {
    byId("panel").hidden = true;
    byId("grid").focus();
  };
  byId("close").addEventListener("click", close);
  byId("panel").addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
}
