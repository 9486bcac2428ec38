/** What the left mouse button does in the planes: look, or tell the corrector something. */

import { LONGEST_SCRIBBLE, type Prompt, type Voxel } from "./contract";
import type { Axis } from "./grid";
import type { Planes } from "./planes";

export interface Mode {
  name: string;
  title: string;
  key: string;
  /** What the mode sends; looking sends nothing. */
  sends?: { kind: Prompt["kind"]; positive: boolean };
  advice: string;
}

export const MODES: Mode[] = [
  { name: "look", title: "Look", key: "l", advice: "Click or drag to move the crosshair." },
  {
    name: "add",
    title: "Add point",
    key: "a",
    sends: { kind: "point", positive: true },
    advice: "Click where the chosen structure is missing. Hold Shift for the opposite.",
  },
  {
    name: "remove",
    title: "Remove point",
    key: "r",
    sends: { kind: "point", positive: false },
    advice: "Click where the chosen structure should not be. Hold Shift for the opposite.",
  },
  {
    name: "box",
    title: "Box",
    key: "b",
    sends: { kind: "box", positive: true },
    advice:
      "Drag, or click two corners, round all of the chosen structure. " +
      "The box is as deep as its shorter side is long, half to each side of the slice.",
  },
  {
    name: "draw",
    title: "Scribble",
    key: "d",
    sends: { kind: "scribble", positive: true },
    advice: "Draw over what belongs to the chosen structure. Hold Shift to draw over what does not.",
  },
];

/** What has been told last, to be shown in the planes. */
export type Told = Pick<Prompt, "kind" | "positive" | "voxels">;

interface Stroke {
  start: { x: number; y: number };
  end: { x: number; y: number };
  path: { x: number; y: number }[];
  tile: number;
  normal: Axis;
  positive: boolean;
  /** A box whose first corner was clicked and whose second one is awaited. */
  waits: boolean;
}

const CLICK_PX = 4; // a hand moves this far while it clicks
const YES = "#7fd4a2";
const NO = "#ff8f80";

export class Pointing {
  private stroke: Stroke | null = null;
  private current = MODES[0];
  /** What was told last; drawn until something else happens. */
  told: Told | null = null;
  onTold: (told: Told) => void = () => {};
  onHover: (voxel: Voxel | null) => void = () => {};
  /** The voxel under the mouse, if it is over a plane. */
  hovered: Voxel | null = null;

  constructor(
    private readonly planes: Planes,
    private readonly marks: HTMLCanvasElement,
    frame: HTMLElement,
    canvas: HTMLCanvasElement,
  ) {
    // seen before NiiVue does, which keeps wheel, middle and right button in every mode
    frame.addEventListener("mousedown", (event) => event.target === canvas && this.down(event), { capture: true });
    frame.addEventListener("mousemove", (event) => event.target === canvas && this.hover(event), { capture: true });
    frame.addEventListener("mouseleave", () => this.leave());
    window.addEventListener("mousemove", (event) => this.drag(event));
    window.addEventListener("mouseup", (event) => this.up(event));
    planes.onDraw = () => this.draw();
  }

  get mode(): Mode {
    return this.current;
  }

  set mode(mode: Mode) {
    this.current = mode;
    this.cancel();
  }

  cancel(): void {
    this.stroke = null;
    this.draw();
  }

  private place(event: MouseEvent): { x: number; y: number } {
    const { left, top } = this.marks.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  private down(event: MouseEvent): void {
    const { sends } = this.current;
    if (event.button !== 0 || !sends) return;
    event.stopPropagation();
    event.preventDefault();
    (event.target as HTMLElement).focus();
    const place = this.place(event);
    if (this.stroke?.waits) {
      this.stroke.end = place;
      this.finish(this.stroke);
      return;
    }
    const plane = this.planes.planeAt(place.x, place.y);
    if (!plane || !this.planes.voxelAt(place.x, place.y)) return;
    const positive = sends.kind === "box" || sends.positive !== event.shiftKey;
    this.stroke = { start: place, end: place, path: [place], ...plane, positive, waits: false };
    if (sends.kind === "point") this.finish(this.stroke);
    else this.draw();
  }

  private hover(event: MouseEvent): void {
    const { x, y } = this.place(event);
    this.hovered = this.planes.voxelAt(x, y);
    this.onHover(this.hovered);
  }

  private leave(): void {
    this.hovered = null;
    this.onHover(null);
  }

  private drag(event: MouseEvent): void {
    const { stroke } = this;
    if (!stroke) return;
    const place = this.place(event);
    if (this.planes.planeAt(place.x, place.y)?.tile !== stroke.tile) return;
    stroke.end = place;
    if (this.current.sends?.kind === "scribble") stroke.path.push(place);
    this.draw();
  }

  private up(event: MouseEvent): void {
    const { stroke } = this;
    if (!stroke || event.button !== 0 || stroke.waits) return;
    const far = Math.hypot(stroke.end.x - stroke.start.x, stroke.end.y - stroke.start.y) > CLICK_PX;
    if (this.current.sends?.kind === "box" && !far) stroke.waits = true;
    else this.finish(stroke);
  }

  private finish(stroke: Stroke): void {
    const { sends } = this.current;
    const voxels = sends && this.voxelsOf(stroke, sends.kind);
    this.cancel();
    if (sends && voxels?.length) this.onTold({ kind: sends.kind, positive: stroke.positive, voxels });
  }

  private voxelsOf({ start, end, path, normal }: Stroke, kind: Prompt["kind"]): Voxel[] {
    const first = this.planes.voxelAt(start.x, start.y)!;
    if (kind === "point") return [first];
    if (kind === "scribble") return this.along(path);
    const last = this.planes.voxelAt(end.x, end.y);
    return last ? this.planes.grid.box(first, last, normal) : [];
  }

  /** The voxels under a path, each once, without gaps. */
  private along(path: { x: number; y: number }[]): Voxel[] {
    const found = new Map<number, Voxel>();
    path.forEach((place, index) => {
      const before = path[Math.max(0, index - 1)];
      const steps = Math.max(1, Math.ceil(Math.hypot(place.x - before.x, place.y - before.y)));
      for (let step = 1; step <= steps; step++) {
        const part = step / steps;
        const voxel = this.planes.voxelAt(
          before.x + part * (place.x - before.x),
          before.y + part * (place.y - before.y),
        );
        if (voxel && found.size < LONGEST_SCRIBBLE) found.set(this.planes.grid.index(voxel), voxel);
      }
    });
    return [...found.values()];
  }

  /** Draw what is being said, and what was said last. */
  draw(): void {
    const { width, height } = this.marks.getBoundingClientRect();
    const scale = window.devicePixelRatio;
    this.marks.width = Math.round(width * scale);
    this.marks.height = Math.round(height * scale);
    const pen = this.marks.getContext("2d")!;
    pen.scale(scale, scale);
    pen.lineWidth = 2;
    pen.lineJoin = pen.lineCap = "round";
    if (this.stroke) this.drawStroke(pen, this.stroke);
    else if (this.told) this.drawTold(pen, this.told);
  }

  private drawStroke(pen: CanvasRenderingContext2D, { start, end, path, positive }: Stroke): void {
    pen.strokeStyle = positive ? YES : NO;
    if (this.current.sends?.kind === "box") {
      pen.strokeRect(start.x, start.y, end.x - start.x, end.y - start.y);
      return;
    }
    pen.beginPath();
    for (const { x, y } of path) pen.lineTo(x, y);
    pen.stroke();
  }

  private drawTold(pen: CanvasRenderingContext2D, { kind, positive, voxels }: Told): void {
    pen.strokeStyle = pen.fillStyle = positive ? YES : NO;
    if (kind === "box") {
      this.drawBox(pen, voxels[0], voxels[1]);
      return;
    }
    for (const voxel of voxels) {
      for (const { x, y } of this.planes.placesOf(voxel)) {
        if (kind === "scribble") pen.fillRect(x - 1.5, y - 1.5, 3, 3);
        else drawPoint(pen, x, y, positive);
      }
    }
  }

  private drawBox(pen: CanvasRenderingContext2D, corner: Voxel, opposite: Voxel): void {
    const { grid, crosshair } = this.planes;
    for (const normal of [0, 1, 2] as const) {
      const here = grid.along(crosshair, normal);
      const [low, high] = [grid.along(corner, normal), grid.along(opposite, normal)].sort((a, b) => a - b);
      if (here < low || here > high) continue;
      const [one, other] = [corner, opposite].map((voxel) =>
        this.planes
          .placesOf(grid.moved(voxel, normal, here - grid.along(voxel, normal)))
          .find((place) => place.normal === normal),
      );
      if (one && other) pen.strokeRect(one.x, one.y, other.x - one.x, other.y - one.y);
    }
  }
}

function drawPoint(pen: CanvasRenderingContext2D, x: number, y: number, positive: boolean): void {
  pen.beginPath();
  pen.arc(x, y, 6, 0, 2 * Math.PI);
  pen.moveTo(x - 3, y);
  pen.lineTo(x + 3, y);
  if (positive) {
    pen.moveTo(x, y - 3);
    pen.lineTo(x, y + 3);
  }
  pen.stroke();
}
