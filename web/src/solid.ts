/** The structures in 3D. The scan itself is left out: it would hide them behind the skin, and show a face. */

import { type NVImage, NVImage as Image, Niivue, SLICE_TYPE } from "@niivue/niivue";

import type { Structure, Voxel } from "./contract";

const LIGHT = 0.7;
const MOST_VOXELS = 1_500_000; // more take seconds to draw without a graphics card; larger parts lose every other voxel
const MARGIN_VOXELS = 2;

export class Solid {
  private readonly niivue: Niivue;
  private labels?: NVImage;
  private shown = new Set<number>();
  private waiting = 0;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.niivue = new Niivue({
      backColor: [0, 0, 0, 1],
      fontColor: [0.75, 0.78, 0.8, 1],
      sliceType: SLICE_TYPE.RENDER,
      dragAndDropEnabled: false,
      logLevel: "error",
      loadingText: "",
    });
  }

  async attach(): Promise<void> {
    await this.niivue.attachToCanvas(this.canvas, false);
    await this.niivue.setVolumeRenderIllumination(LIGHT);
    this.niivue.setRenderAzimuthElevation(120, 15);
  }

  /** Show some of the structures in labels; voxels that change later are drawn by the next ``refresh``. */
  show(labels: NVImage, structures: Structure[]): void {
    this.labels = labels;
    this.shown = new Set(structures.map(({ id }) => id));
    this.refresh();
  }

  /** Draw the labels as they are now, a little later: the planes come first. */
  refresh(): void {
    window.clearTimeout(this.waiting);
    this.waiting = window.setTimeout(() => this.draw(), 150);
  }

  private draw(): void {
    if (!this.labels) return;
    const part = cut(this.labels, this.shown);
    this.niivue.volumes = part ? [part] : [];
    if (part) this.niivue.setVolume(part, 0);
    else this.niivue.drawScene();
  }
}

/** The part of labels that holds some ids and nothing else; null where there is none of them. */
function cut(labels: NVImage, ids: Set<number>): NVImage | null {
  const shape = labels.hdr!.dims.slice(1, 4) as Voxel;
  const voxels = labels.img as Uint16Array;
  const box = boxOf(voxels, shape, ids);
  if (!box) return null;
  const [low, high] = box;
  const size = low.map((start, axis) => high[axis] - start + 1);
  const step = Math.ceil(Math.cbrt((size[0] * size[1] * size[2]) / MOST_VOXELS));
  const dims = size.map((length) => Math.ceil(length / step)) as Voxel;

  const part = new Image();
  const { affine, pixDims } = labels.hdr!;
  part.hdr = Object.assign(Object.create(Object.getPrototypeOf(labels.hdr)), labels.hdr, {
    dims: [3, ...dims, 1, 1, 1, 1],
    pixDims: pixDims.map((size_mm, axis) => (axis >= 1 && axis <= 3 ? size_mm * step : size_mm)),
    affine: affine.map((row, world) =>
      world === 3 ? row : [...row.slice(0, 3).map((part_mm) => part_mm * step), at(row, low)],
    ),
  });
  part.img = new Uint16Array(dims[0] * dims[1] * dims[2]);
  let to = 0;
  for (let k = low[2]; k <= high[2]; k += step) {
    for (let j = low[1]; j <= high[1]; j += step) {
      for (let i = low[0]; i <= high[0]; i += step, to++) {
        const id = voxels[i + shape[0] * (j + shape[1] * k)];
        if (ids.has(id)) part.img[to] = id;
      }
    }
  }
  part.nFrame4D = 1;
  part.calculateRAS();
  Object.assign(part, { cal_min: 0, cal_max: 1, global_min: 0, global_max: 1 });
  part.colormapLabel = labels.colormapLabel;
  return part;
}

/** First and last voxel along each axis that hold some ids, with a margin. */
function boxOf(voxels: Uint16Array, shape: Voxel, ids: Set<number>): [Voxel, Voxel] | null {
  const wanted = new Uint8Array(65536);
  for (const id of ids) wanted[id] = 1;
  const low: Voxel = [...shape];
  const high: Voxel = [-1, -1, -1];
  let index = 0;
  for (let k = 0; k < shape[2]; k++) {
    for (let j = 0; j < shape[1]; j++) {
      for (let i = 0; i < shape[0]; i++, index++) {
        if (!wanted[voxels[index]]) continue;
        if (i < low[0]) low[0] = i;
        if (i > high[0]) high[0] = i;
        if (j < low[1]) low[1] = j;
        if (j > high[1]) high[1] = j;
        if (k < low[2]) low[2] = k;
        high[2] = k;
      }
    }
  }
  if (high[2] < 0) return null;
  return [
    low.map((start) => Math.max(0, start - MARGIN_VOXELS)) as Voxel,
    high.map((end, axis) => Math.min(shape[axis] - 1, end + MARGIN_VOXELS)) as Voxel,
  ];
}

/** A row of an affine, applied to a voxel. */
function at(row: number[], voxel: Voxel): number {
  return row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3];
}
