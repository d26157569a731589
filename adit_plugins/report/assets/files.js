"use strict";
// The data of the page, and structures as text files. Texts from outside are never made into HTML.

const DATA = JSON.parse(document.getElementById("data").textContent);
const KINDS = ["crystal", "molecule"];

// One object a row: {kind, structures, ...values}.
function rowsOf(kind) {
  const table = DATA.tables[kind];
  return table.rows.map((cells, i) => {
    const row = { kind, structures: table.structures[i] };
    table.columns.forEach((name, k) => { row[name] = cells[k]; });
    const shown = row.structures[row.structures.length - 1];
    row.elements = shown ? [...new Set(shown.z)].map((z) => DATA.symbols[z]) : [];
    return row;
  });
}

function symbols(structure) {
  return structure.z.map((z) => DATA.symbols[z]);
}

function positions(structure) {
  return structure.z.map((_, i) => structure.x.slice(3 * i, 3 * i + 3));
}

function lattice(structure) {
  return structure.l ? [0, 3, 6].map((i) => structure.l.slice(i, i + 3)) : null;
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const length = (a) => Math.sqrt(dot(a, a));
const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0],
];

// Cartesian from fractional coordinates.
function combine(frac, cell) {
  return [0, 1, 2].map((k) => frac[0] * cell[0][k] + frac[1] * cell[1][k] + frac[2] * cell[2][k]);
}

// Fractional coordinates in [0, 1); null where the cell has no volume.
function fractional(structure) {
  const cell = lattice(structure);
  const volume = dot(cell[0], cross(cell[1], cell[2]));
  if (!(Math.abs(volume) > 1e-6)) return null;
  const rows = [[1, 2], [2, 0], [0, 1]].map(([i, j]) => cross(cell[i], cell[j]).map((v) => v / volume));
  return positions(structure).map((x) => rows.map((row) => {
    const wrapped = ((dot(row, x) % 1) + 1) % 1;
    return wrapped > 0.999995 ? 0 : wrapped; // rounded to five digits it would be 1
  }));
}

function angle(a, b) {
  return (Math.acos(Math.max(-1, Math.min(1, dot(a, b) / length(a) / length(b)))) * 180) / Math.PI;
}

// Letters, digits and a few marks: for file names, and names within files.
function safeName(text) {
  return String(text).replace(/[^\w.+-]+/g, "_").slice(0, 80) || "structure";
}

function oneLine(text) {
  return String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ");
}

function asCif(row, structure) {
  const cell = lattice(structure);
  const angles = [[1, 2], [0, 2], [0, 1]].map(([i, j]) => angle(cell[i], cell[j]));
  const names = symbols(structure);
  const lines = [`# ${oneLine(row.id)}`, `data_${safeName(row.formula)}`];
  "abc".split("").forEach((axis, i) => lines.push(`_cell_length_${axis} ${length(cell[i]).toFixed(5)}`));
  ["alpha", "beta", "gamma"].forEach((name, i) => lines.push(`_cell_angle_${name} ${angles[i].toFixed(4)}`));
  lines.push("_symmetry_space_group_name_H-M 'P 1'", "_symmetry_Int_Tables_number 1", "loop_",
    " _symmetry_equiv_pos_as_xyz", " 'x, y, z'", "loop_", " _atom_site_label",
    " _atom_site_type_symbol", " _atom_site_fract_x", " _atom_site_fract_y",
    " _atom_site_fract_z", " _atom_site_occupancy");
  fractional(structure).forEach((x, i) => {
    lines.push(` ${names[i]}${i + 1} ${names[i]} ${x.map((v) => v.toFixed(5)).join(" ")} 1`);
  });
  return lines.join("\n") + "\n";
}

function asPoscar(row, structure) {
  const names = symbols(structure);
  const kinds = [...new Set(names)];
  const coords = fractional(structure);
  const lines = [oneLine(`${row.formula} ${row.id}`), "1.0"];
  lattice(structure).forEach((v) => lines.push(v.map((each) => each.toFixed(6)).join(" ")));
  lines.push(kinds.join(" "), kinds.map((kind) => names.filter((n) => n === kind).length).join(" "));
  lines.push("Direct");
  for (const kind of kinds) {
    coords.forEach((x, i) => {
      if (names[i] === kind) lines.push(`${x.map((v) => v.toFixed(6)).join(" ")} ${kind}`);
    });
  }
  return lines.join("\n") + "\n";
}

function asXyz(row, structure) {
  const names = symbols(structure);
  const cell = structure.l
    ? `Lattice="${structure.l.join(" ")}" Properties=species:S:1:pos:R:3 pbc="T T T"`
    : "Properties=species:S:1:pos:R:3 pbc=\"F F F\"";
  const id = oneLine(row.id).replace(/["\\]/g, "_");
  const lines = [String(names.length), `${cell} sample_id="${id}"`];
  positions(structure).forEach((x, i) => {
    lines.push(`${names[i]} ${x.map((v) => v.toFixed(4)).join(" ")}`);
  });
  return lines.join("\n") + "\n";
}

// V2000; the valence of every atom is given, so that no reader adds hydrogen atoms.
function asSdf(row, structure) {
  const names = symbols(structure);
  const bonds = triples(structure.b);
  const pad = (value, width) => String(value).padStart(width);
  const valence = names.map(() => 0);
  bonds.forEach(([i, j, order]) => { valence[i] += order; valence[j] += order; });
  const lines = [oneLine(row.id), "  adit", "",
    `${pad(names.length, 3)}${pad(bonds.length, 3)}  0  0  0  0  0  0  0  0999 V2000`];
  positions(structure).forEach((x, i) => {
    const place = x.map((v) => pad(v.toFixed(4), 10)).join("");
    lines.push(`${place} ${names[i].padEnd(3)} 0  0  0  0  0${pad(valence[i] || 15, 3)}  0  0  0  0  0  0`);
  });
  bonds.forEach(([i, j, order]) => lines.push(`${pad(i + 1, 3)}${pad(j + 1, 3)}${pad(order, 3)}  0`));
  const charges = structure.q || [];
  for (let k = 0; k < charges.length; k += 2) {
    lines.push(`M  CHG  1${pad(charges[k] + 1, 4)}${pad(charges[k + 1], 4)}`);
  }
  return [...lines, "M  END", "$$$$"].join("\n") + "\n";
}

function triples(flat) {
  const found = [];
  for (let k = 0; k < (flat || []).length; k += 3) found.push(flat.slice(k, k + 3));
  return found;
}

// Name, suffix and writer of what a structure can be saved as.
function formatsOf(structure) {
  const found = [];
  if (structure.l && fractional(structure)) {
    found.push(["CIF", ".cif", asCif], ["POSCAR", ".poscar", asPoscar]);
  }
  if (structure.b && structure.z.length < 1000 && structure.b.length / 3 < 1000) {
    found.push(["SDF", ".sdf", asSdf]);
  }
  return [...found, ["XYZ", ".xyz", asXyz]];
}

function asCsv(rows, names) {
  const cell = (value) => {
    let text = Array.isArray(value) ? value.join(" ") : String(value ?? "");
    // A spreadsheet would run what begins like this.
    if (typeof value !== "number" && /^[=+@\t\r-]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))]
    .map((cells) => cells.map(cell).join(",")).join("\r\n") + "\r\n";
}

function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
