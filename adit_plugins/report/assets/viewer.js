"use strict";
// The structure in 3D: one 3Dmol viewer, so one WebGL context, for whatever is chosen.

const BOND_FACTOR = 1.15; // of the covalent radii's sum
const MAX_BONDED = 1500; // atoms; all pairs are compared
const NONMETALS = new Set([1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 52, 53]);
const GHOST = "#8a94a2"; // a crystal as generated, thin and grey behind the relaxed one

let viewer3d = null;

function the3dViewer() {
  if (viewer3d) return viewer3d;
  const box = document.getElementById("view");
  try {
    viewer3d = $3Dmol.createViewer(box, { antialias: true, backgroundAlpha: 0, disableFog: true });
  } catch (error) {
    viewer3d = null; // no WebGL
  }
  if (!viewer3d) {
    box.textContent = "This browser cannot draw in 3D (no WebGL). Downloads work all the same.";
    return null;
  }
  viewer3d.setBackgroundColor(0xffffff, 0);
  new ResizeObserver(() => viewer3d.resize()).observe(box);
  return viewer3d;
}

// Draw structures of one row; what is behind the last one is a ghost.
function drawStructures(structures, cells) {
  const viewer = the3dViewer();
  if (!viewer) return;
  viewer.clear();
  structures.forEach((structure, i) => {
    const ghost = i < structures.length - 1;
    const atoms = structure.l ? crystalAtoms(structure, cells) : moleculeAtoms(structure);
    const model = viewer.addModel();
    model.addAtoms(atoms);
    model.setStyle({}, styleOf(structure, ghost));
    if (structure.l && !ghost) drawCell(viewer, lattice(structure));
    drawFaults(viewer, structure);
  });
  viewer.zoomTo();
  if (structures.some((each) => each.l)) {
    viewer.setView([...viewer.getView().slice(0, 4), 0, 0, 0, 1]);
    viewer.rotate(-75, "x");
    viewer.rotate(-15, "y");
    viewer.zoom(0.95);
  }
  viewer.render();
}

// Groups of atoms that failed a check: red nets, and a line between neighbours of a group.
function drawFaults(viewer, structure) {
  const places = positions(structure).map(([x, y, z]) => ({ x, y, z }));
  const color = "#d6336c";
  for (const group of structure.m ?? []) {
    group.forEach((i) => viewer.addSphere({ center: places[i], radius: 0.5, color, wireframe: true, linewidth: 2 }));
    group.slice(1).forEach((j, n) => viewer.addCylinder({
      start: places[group[n]], end: places[j], radius: 0.05, color, dashed: true,
    }));
  }
}

function styleOf(structure, ghost) {
  if (ghost) return { sphere: { scale: 0.1, color: GHOST }, stick: { radius: 0.04, color: GHOST } };
  const colorscheme = "Jmol";
  return structure.l
    ? { sphere: { scale: 0.28, colorscheme }, stick: { radius: 0.09, colorscheme } }
    : { sphere: { scale: 0.22, colorscheme }, stick: { radius: 0.13, colorscheme } };
}

function moleculeAtoms(structure) {
  const names = symbols(structure);
  const atoms = positions(structure).map(([x, y, z], index) => (
    { elem: names[index], x, y, z, index, serial: index, bonds: [], bondOrder: [] }));
  if (!structure.b) return bonded(atoms, structure.z);
  triples(structure.b).forEach(([i, j, order]) => join(atoms, i, j, order));
  return atoms;
}

// The cell repeated, with the images of atoms on its faces, edges and corners.
function crystalAtoms(structure, cells) {
  const cell = lattice(structure);
  const coords = fractional(structure);
  const names = symbols(structure);
  if (!coords) return moleculeAtoms({ ...structure, b: [] });
  const atoms = [];
  const numbers = [];
  coords.forEach((frac, i) => {
    const steps = frac.map((v) => (v < 0.01 ? cells + 1 : cells));
    for (let a = 0; a < steps[0]; a++) {
      for (let b = 0; b < steps[1]; b++) {
        for (let c = 0; c < steps[2]; c++) {
          const [x, y, z] = combine([frac[0] + a, frac[1] + b, frac[2] + c], cell);
          const index = atoms.length;
          atoms.push({ elem: names[i], x, y, z, index, serial: index, bonds: [], bondOrder: [] });
          numbers.push(structure.z[i]);
        }
      }
    }
  });
  return bonded(atoms, numbers);
}

function bonded(atoms, numbers) {
  if (atoms.length > MAX_BONDED) return atoms;
  const salt = numbers.some((z) => NONMETALS.has(z)); // metals side by side are no bond there
  for (let i = 0; i < atoms.length; i++) {
    for (let j = 0; j < i; j++) {
      if (salt && !NONMETALS.has(numbers[i]) && !NONMETALS.has(numbers[j])) continue;
      const limit = BOND_FACTOR * (DATA.radii[numbers[i]] + DATA.radii[numbers[j]]);
      const [dx, dy, dz] = [atoms[i].x - atoms[j].x, atoms[i].y - atoms[j].y, atoms[i].z - atoms[j].z];
      const square = dx * dx + dy * dy + dz * dz;
      if (square < limit * limit && square > 0.01) join(atoms, i, j, 1);
    }
  }
  return atoms;
}

function join(atoms, i, j, order) {
  atoms[i].bonds.push(j);
  atoms[i].bondOrder.push(order);
  atoms[j].bonds.push(i);
  atoms[j].bondOrder.push(order);
}

function drawCell(viewer, cell) {
  const color = dark() ? "#aab4c2" : "#3a434f";
  const point = (frac) => {
    const [x, y, z] = combine(frac, cell);
    return { x, y, z };
  };
  for (let axis = 0; axis < 3; axis++) {
    for (const [u, v] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      const start = [0, 0, 0];
      start[(axis + 1) % 3] = u;
      start[(axis + 2) % 3] = v;
      const end = [...start];
      end[axis] = 1;
      viewer.addCylinder({ start: point(start), end: point(end), radius: 0.035, color });
    }
    const tip = [0, 0, 0];
    tip[axis] = 1.06;
    viewer.addLabel("abc"[axis], {
      position: point(tip), fontColor: color, fontSize: 15, backgroundOpacity: 0, alignment: "center",
    });
  }
}

// The colours of the elements, beside the picture.
function drawLegend(box, structure) {
  box.replaceChildren(...[...new Set(symbols(structure))].map((symbol) => {
    const colour = $3Dmol.elementColors.Jmol[symbol] ?? 0xff1493;
    const swatch = element("i");
    swatch.style.background = `#${colour.toString(16).padStart(6, "0")}`;
    return element("span", {}, swatch, symbol);
  }));
}

function dark() {
  const chosen = document.documentElement.style.colorScheme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// An element with attributes and children; texts become text nodes, never markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A formula with its numbers below the line.
function formulaNode(formula) {
  const parts = String(formula ?? "?").split(/(\d+(?:\.\d+)?)/);
  return element("span", { class: "formula" },
    ...parts.map((part, i) => (i % 2 ? element("sub", {}, part) : part)));
}
