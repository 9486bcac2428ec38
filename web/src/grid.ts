/** Where a place on the screen lies in the file. NiiVue turns every image to right, anterior, superior; a prompt does not. */

import type { Voxel } from "./contract";

/** 0 left to right, 1 back to front, 2 bottom to top. */
export type Axis = 0 | 1 | 2;

/** A place in the image, 0 to 1 along the turned axes. */
export type Fraction = ArrayLike<number>;

export class Grid {
  /** Millimetres from voxel to voxel along the turned axes. */
  readonly spacing_mm: Voxel;

  /**
   * @param shape voxels along the axes of the file
   * @param perm for each turned axis the axis of the file it is, counted from 1, negative where it runs backwards
   * @param pixdims_mm size of a voxel along the axes of the file
   */
  constructor(
    readonly shape: Voxel,
    private readonly perm: readonly number[],
    pixdims_mm: Voxel,
  ) {
    this.spacing_mm = perm.map((axis) => Math.abs(pixdims_mm[Math.abs(axis) - 1])) as Voxel;
  }

  /** The voxel that holds a place, or null outside the image. */
  voxelAt(place: Fraction): Voxel | null {
    const voxel: Voxel = [0, 0, 0];
    for (const axis of [0, 1, 2] as const) {
      if (!(place[axis] >= 0 && place[axis] <= 1)) return null;
      const size = this.sizeAlong(axis);
      this.set(voxel, axis, Math.min(Math.floor(place[axis] * size), size - 1));
    }
    return voxel;
  }

  /** The middle of a voxel. */
  placeOf(voxel: Voxel): Voxel {
    return ([0, 1, 2] as const).map((axis) => (this.along(voxel, axis) + 0.5) / this.sizeAlong(axis)) as Voxel;
  }

  /** Index of a voxel in the file's order. */
  index([i, j, k]: Voxel): number {
    return i + this.shape[0] * (j + this.shape[1] * k);
  }

  /** Number of voxels along a turned axis. */
  sizeAlong(axis: Axis): number {
    return this.shape[Math.abs(this.perm[axis]) - 1];
  }

  /** Position of a voxel along a turned axis. */
  along(voxel: Voxel, axis: Axis): number {
    const position = voxel[Math.abs(this.perm[axis]) - 1];
    return this.perm[axis] > 0 ? position : this.sizeAlong(axis) - 1 - position;
  }

  /** The voxel moved along a turned axis, and kept inside the image. */
  moved(voxel: Voxel, axis: Axis, by: number): Voxel {
    const moved: Voxel = [...voxel];
    this.set(moved, axis, Math.max(0, Math.min(this.sizeAlong(axis) - 1, this.along(voxel, axis) + by)));
    return moved;
  }

  /**
   * Two corners of the box over a rectangle in a plane.
   *
   * A structure is about as thick as it is wide, so the box is as deep as its shorter side is long, half to each side.
   *
   * @param normal the axis that the plane is perpendicular to
   */
  box(corner: Voxel, opposite: Voxel, normal: Axis): [Voxel, Voxel] {
    const sides_mm = ([0, 1, 2] as const)
      .filter((axis) => axis !== normal)
      .map((axis) => (Math.abs(this.along(corner, axis) - this.along(opposite, axis)) + 1) * this.spacing_mm[axis]);
    const depth = Math.round(Math.min(...sides_mm) / 2 / this.spacing_mm[normal]);
    return [this.moved(corner, normal, -depth), this.moved(opposite, normal, depth)];
  }

  private set(voxel: Voxel, axis: Axis, position: number): void {
    voxel[Math.abs(this.perm[axis]) - 1] = this.perm[axis] > 0 ? position : this.sizeAlong(axis) - 1 - position;
  }
}
