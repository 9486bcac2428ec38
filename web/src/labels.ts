/** Labels in the page: their colours, and changes to them. */

import type { Change, Structure, Voxel } from "./contract";

export interface Colours {
  R: number[];
  G: number[];
  B: number[];
  A: number[];
  I: number[];
  labels: string[];
}

/** The colour of each structure; background and ids beyond the last structure are clear. */
export function colours(structures: Structure[]): Colours {
  const clear = { name: "", colour: [0, 0, 0] };
  const rows = [
    { ...clear, id: 0, alpha: 0 },
    ...structures.filter(({ id }) => id > 0).map((row) => ({ ...row, alpha: 255 })),
    { ...clear, id: Math.max(...structures.map(({ id }) => id)) + 1, alpha: 0 },
  ];
  return {
    R: rows.map(({ colour }) => colour[0]),
    G: rows.map(({ colour }) => colour[1]),
    B: rows.map(({ colour }) => colour[2]),
    A: rows.map(({ alpha }) => alpha),
    I: rows.map(({ id }) => id),
    labels: rows.map(({ name }) => name),
  };
}

/** Write what changed into labels that lie in the file's order, i fastest. */
export function apply(change: Change, labels: Uint16Array, shape: Voxel): void {
  if (!change.box) return;
  const [i0, j0, k0, i1, j1, k1] = change.box;
  const bytes = Uint8Array.from(atob(change.labels), (letter) => letter.charCodeAt(0));
  const fresh = new Uint16Array(bytes.buffer); // every computer that runs a browser is little endian
  const row = i1 - i0;
  if (fresh.length !== row * (j1 - j0) * (k1 - k0)) throw new Error("the change does not fill its box");
  let from = 0;
  for (let k = k0; k < k1; k++) {
    for (let j = j0; j < j1; j++, from += row) {
      labels.set(fresh.subarray(from, from + row), i0 + shape[0] * (j + shape[1] * k));
    }
  }
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A volume for people. */
export function volume(mm3: number): string {
  return `${size(mm3)} mm³`;
}

/** A volume in mm³ for a table that names the unit. */
export function size(mm3: number): string {
  return whole.format(mm3);
}
