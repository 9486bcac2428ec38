/** The scan in three planes with its labels on top, drawn by NiiVue. */

import { DRAG_MODE, type NVImage, NVImage as Image, Niivue, SLICE_TYPE } from "@niivue/niivue";

import type { Change, State, Voxel } from "./contract";
import { type Axis, Grid } from "./grid";
import { apply, colours } from "./labels";

const LABEL_INTENT = 1002; // NIfTI's code; NiiVue then colours by id and never mixes two labels
const LABEL_LAYER = 1;
const DOUBT_LAYER = 2;
const LARGEST = 10; // times
const OVERLAY_TEXTURE = 2; // NiiVue keeps all that lies on the image in this texture unit

const NORMAL_OF: Record<number, Axis> = { [SLICE_TYPE.AXIAL]: 2, [SLICE_TYPE.CORONAL]: 1, [SLICE_TYPE.SAGITTAL]: 0 };

/** What is shown: all planes in three quarters (the fourth is for 3D), or one. */
export type Layout = "all" | "axial" | "coronal" | "sagittal";

type Quarter = { sliceType: SLICE_TYPE; position: [number, number, number, number] };

const QUARTERS: Quarter[] = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.5, 0.5] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0.5, 0, 0.5, 0.5] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0, 0.5, 0.5, 0.5] },
];

const WHOLE: Record<Exclude<Layout, "all">, SLICE_TYPE> = {
  axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL,
};

/** How the labels look. */
export interface Look {
  opacity: number;
  outlines: boolean;
  chosen: number | null;
}

export class Planes {
  private readonly niivue: Niivue;
  private image?: NVImage;
  private overlay?: NVImage;
  private doubt?: NVImage;
  private turned?: Grid;
  private looks: Look = { opacity: 0.4, outlines: false, chosen: null };
  /** Called after every drawing: what lies on top has to follow zoom, pan and slice. */
  onDraw: () => void = () => {};
  onCrosshair: () => void = () => {};

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.niivue = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.55, 0.75, 0.95, 0.55],
      crosshairWidth: 0.5,
      crosshairGap: 6,
      fontColor: [0.75, 0.78, 0.8, 1],
      dragAndDropEnabled: false,
      isSliceMM: false,
      showAllOrientationMarkers: true,
      logLevel: "error",
      loadingText: "",
      mouseEventConfig: {
        leftButton: { primary: DRAG_MODE.crosshair },
        centerButton: DRAG_MODE.pan,
        rightButton: DRAG_MODE.windowing,
      },
    });
    const draw = this.niivue.drawScene.bind(this.niivue);
    this.niivue.drawScene = () => {
      draw();
      this.onDraw();
    };
    this.niivue.onLocationChange = () => this.onCrosshair();
    this.niivue.setCustomLayout(QUARTERS);
  }

  async attach(): Promise<void> {
    await this.niivue.attachToCanvas(this.canvas, false);
    // NiiVue works out slopes for the light in 3D with every image. Planes need none, and without a graphics card it
    // takes a quarter of a minute, so the cheapest program stands in.
    const { passThroughShader } = this.niivue;
    this.niivue.blurShader = this.niivue.sobelFirstOrderShader = passThroughShader ?? null;
  }

  /** Show a scan with its labels. */
  async show(image: File, labels: File, state: State): Promise<void> {
    const [scan, overlay] = await Promise.all([Image.loadFromFile({ file: image, colormap: "gray" }), labelsOf(labels, state)]);
    this.doubt = undefined;
    this.image = scan;
    this.overlay = overlay;
    const { dims, pixDims } = scan.hdr!;
    this.turned = new Grid(dims.slice(1, 4) as Voxel, scan.permRAS!, pixDims.slice(1, 4) as Voxel);
    if (overlay.hdr!.dims.slice(1, 4).join() !== dims.slice(1, 4).join()) throw new Error("scan and labels differ in size");
    this.dress();
    this.niivue.volumes = [scan, overlay];
    this.niivue.setVolume(scan, 0);
    this.sharpen();
  }

  /** Replace the labels and keep the image. */
  async replaceLabels(labels: File, state: State): Promise<void> {
    const fresh = await labelsOf(labels, state);
    this.labels.set(fresh.img as Uint16Array);
    this.refreshOverlay();
  }

  apply(change: Change): void {
    if (!change.box) return;
    apply(change, this.labels, this.grid.shape);
    this.refreshOverlay();
  }

  /** Show or hide how much the model doubts each label. */
  async showDoubt(doubt: File | null): Promise<void> {
    this.doubt = undefined;
    if (doubt) {
      this.doubt = await Image.loadFromFile({ file: doubt, colormap: "inferno", opacity: 0.7, cal_min: 0.15, cal_max: 1 });
      this.doubt.colormapType = 1; // clear below cal_min, and colours that start at 0
    }
    const overlays = this.doubt ? [this.overlay!, this.doubt] : [this.overlay!];
    this.niivue.volumes = [this.image!, ...overlays];
    this.niivue.overlays = overlays;
    this.refreshOverlay();
  }

  look(looks: Look): void {
    const same = (Object.keys(looks) as (keyof Look)[]).every((key) => looks[key] === this.looks[key]);
    this.looks = looks;
    if (same || !this.overlay) return;
    this.dress();
    this.refreshOverlay();
  }

  set layout(layout: Layout) {
    if (layout === "all") this.niivue.setCustomLayout(QUARTERS);
    else this.niivue.setCustomLayout([{ sliceType: WHOLE[layout], position: [0, 0, 1, 1] }]);
  }

  /** Enlarge the planes round the crosshair, or make them smaller; not smaller than their place. */
  enlarge(factor: number): void {
    const [x, y, z, before] = this.niivue.scene.pan2Dxyzmm;
    const after = Math.min(LARGEST, Math.max(1, before * factor));
    const mm = this.niivue.frac2mm(this.niivue.scene.crosshairPos);
    const moved = after === 1 ? [0, 0, 0] : [x, y, z].map((pan_mm, axis) => pan_mm - (after - before) * mm[axis]);
    this.niivue.setPan2Dxyzmm([...moved, after] as never);
  }

  /** Whether the person's left is on the right of the picture, as radiologists have it. */
  set leftOnTheRight(mirrored: boolean) {
    this.niivue.setRadiologicalConvention(mirrored);
    this.niivue.drawScene();
  }

  get intensities(): { low: number; high: number; min: number; max: number } | null {
    if (!this.image) return null;
    const { cal_min, cal_max, global_min, global_max } = this.image;
    return { low: cal_min!, high: cal_max!, min: global_min!, max: global_max! };
  }

  setIntensities(low: number, high: number): void {
    if (!this.image) return;
    this.image.cal_min = low;
    this.image.cal_max = high;
    this.niivue.refreshLayers(this.image, 0);
    this.niivue.drawScene();
  }

  resetIntensities(): void {
    if (this.image) this.setIntensities(this.image.robust_min!, this.image.robust_max!);
  }

  get grid(): Grid {
    if (!this.turned) throw new Error("no scan is shown");
    return this.turned;
  }

  /** The labels in the file's order, i fastest. */
  get labels(): Uint16Array {
    if (!this.overlay) throw new Error("no scan is shown");
    return this.overlay.img as Uint16Array;
  }

  /** The labels as an image, for others to draw. */
  get labelImage(): NVImage {
    return this.overlay!;
  }

  labelAt(voxel: Voxel): number {
    return this.labels[this.grid.index(voxel)];
  }

  get shown(): boolean {
    return this.turned !== undefined;
  }

  get crosshair(): Voxel {
    return this.grid.voxelAt(clamped(this.niivue.scene.crosshairPos))!;
  }

  set crosshair(voxel: Voxel) {
    this.niivue.scene.crosshairPos = this.grid.placeOf(voxel);
    this.niivue.drawScene();
    this.onCrosshair();
  }

  /** The plane at a place of the canvas, in CSS pixels, and what it is perpendicular to. */
  planeAt(x: number, y: number): { tile: number; normal: Axis } | null {
    const tile = this.niivue.tileIndex(x * this.dpr, y * this.dpr);
    const normal = tile >= 0 ? NORMAL_OF[this.niivue.screenSlices[tile].axCorSag] : undefined;
    return normal === undefined ? null : { tile, normal };
  }

  /** The voxel at a place of the canvas, in CSS pixels; null outside the planes and their image. */
  voxelAt(x: number, y: number): Voxel | null {
    if (!this.turned) return null;
    return this.turned.voxelAt(this.niivue.canvasPos2frac([x * this.dpr, y * this.dpr]));
  }

  /** Where the middle of a voxel is drawn, in CSS pixels, in each plane that shows its slice now. */
  placesOf(voxel: Voxel): { x: number; y: number; normal: Axis; scale: number }[] {
    if (!this.turned) return [];
    const { crosshair, grid } = this;
    const place = grid.placeOf(voxel);
    return this.niivue.screenSlices.flatMap((slice) => {
      const normal = NORMAL_OF[slice.axCorSag];
      if (normal === undefined || grid.along(voxel, normal) !== grid.along(crosshair, normal)) return [];
      const [right, up] = ([0, 1, 2] as const).filter((axis) => axis !== normal);
      const mm = this.niivue.frac2mm(place as never, 0, false);
      let across = (mm[right] - slice.leftTopMM[0]) / slice.fovMM[0];
      let [left, top, width, height] = slice.leftTopWidthHeight;
      if (width < 0) [left, width, across] = [left + width, -width, 1 - across]; // drawn mirrored
      const x = (left + across * width) / this.dpr;
      const y = (top + (1 - (mm[up] - slice.leftTopMM[1]) / slice.fovMM[1]) * height) / this.dpr;
      return [{ x, y, normal, scale: width / this.dpr / Math.abs(slice.fovMM[0]) }];
    });
  }

  private get dpr(): number {
    return this.niivue.uiData.dpr ?? 1;
  }

  private dress(): void {
    const { opacity, outlines, chosen } = this.looks;
    // NiiVue shows the active structure stronger when the others are faint, and fainter otherwise
    this.niivue.opts.atlasActiveIndex = !outlines && opacity > 0 && opacity <= 0.5 ? (chosen ?? 0) : 0;
    this.niivue.opts.atlasOutline = outlines ? Math.min(1, 2 * opacity) : 0; // a thin line needs more than an area
    this.overlay!.opacity = outlines ? 0 : opacity;
  }

  /** Draw what lies on the image anew; the image itself stays as it is in the graphics memory. */
  private refreshOverlay(): void {
    this.niivue.refreshLayers(this.overlay!, LABEL_LAYER);
    if (this.doubt) this.niivue.refreshLayers(this.doubt, DOUBT_LAYER);
    this.sharpen();
  }

  /** Show labels voxel by voxel: smoothed between voxels, their colours would mix at borders. */
  private sharpen(): void {
    const { gl } = this.niivue;
    gl.activeTexture(gl.TEXTURE0 + OVERLAY_TEXTURE);
    gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    this.niivue.drawScene();
  }
}

async function labelsOf(file: File, state: State): Promise<NVImage> {
  const labels = await Image.loadFromFile({ file });
  labels.hdr!.intent_code = LABEL_INTENT;
  labels.setColormapLabel(colours(state.structures));
  if (!(labels.img instanceof Uint16Array)) throw new Error("the labels are not uint16");
  return labels;
}

function clamped(place: ArrayLike<number>): number[] {
  return Array.from(place, (part) => Math.min(1, Math.max(0, part)));
}
