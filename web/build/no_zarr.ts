/**
 * Stands in for zarrita: NiiVue brings it to read zarr images, and it brings decoders larger than the page.
 * The page reads NIfTI from its own server and nothing else.
 */

function never(): never {
  throw new Error("this page reads no zarr images");
}

export { never as FetchStore, never as get, never as open, never as root, never as slice };
