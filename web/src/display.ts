/** The controls that change how things look and nothing else. */

import { page } from "./page";
import type { Planes } from "./planes";

/** Connect the controls to the planes; the answer shows a new scan or structure the way the controls say. */
export function display(planes: Planes, chosen: () => number | null): () => void {
  const look = () =>
    planes.look({
      opacity: page.labels.checked ? Number(page.opacity.value) : 0,
      outlines: page.outlines.checked,
      chosen: chosen(),
    });
  const readWindow = () => {
    const now = planes.intensities;
    if (!now) return;
    const range = now.max - now.min || 1;
    Object.assign(page.window, { min: range / 200, max: range, value: now.high - now.low });
    Object.assign(page.level, { min: now.min, max: now.max, value: (now.high + now.low) / 2 });
  };
  const writeWindow = () => {
    const half = Number(page.window.value) / 2;
    planes.setIntensities(Number(page.level.value) - half, Number(page.level.value) + half);
  };
  for (const control of [page.opacity, page.labels, page.outlines]) control.addEventListener("input", once(look));
  for (const control of [page.window, page.level]) control.addEventListener("input", once(writeWindow));
  page.mirrored.addEventListener("change", () => (planes.leftOnTheRight = page.mirrored.checked));
  page.autoWindow.addEventListener("click", () => {
    planes.resetIntensities();
    readWindow();
  });
  window.addEventListener("mouseup", readWindow); // the right button changes the window in the planes
  return () => {
    readWindow();
    look();
  };
}

/** At most once a frame: a dragged slider says more than a slow computer can draw. */
function once(work: () => void): () => void {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      work();
    });
  };
}
