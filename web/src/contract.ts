/** What the server says and is told: the values of its HTTP interface, version 1. */

export const API = 1;

/** A voxel [i, j, k] of the scan as it lies in the file. */
export type Voxel = [number, number, number];

export interface Structure {
  id: number;
  name: string;
  colour: [number, number, number];
  mm3: number;
}

export interface State {
  case: string;
  protocol: string;
  shape: Voxel;
  structures: Structure[];
  events: number;
  can_undo: boolean;
  can_redo: boolean;
  saved: boolean;
  next: { voxel: Voxel; structure: number; doubt: number } | null;
  corrector: string;
  notes: string[];
}

export interface Change {
  changed: number;
  /** Half-open: [i0, j0, k0, i1, j1, k1]; null when no voxel changed. */
  box: [number, number, number, number, number, number] | null;
  /** Base64 of uint16, little endian, the labels inside the box, i fastest. */
  labels: string;
  state: State;
}

export interface Cases {
  cases: { name: string; edited: boolean }[];
  open: string | null;
}

export interface Prompt {
  structure: number;
  kind: "point" | "box" | "scribble";
  positive: boolean;
  voxels: Voxel[];
}

/** The most voxels a scribble may have. */
export const LONGEST_SCRIBBLE = 10_000;
