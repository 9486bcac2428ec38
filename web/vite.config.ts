import { join } from "node:path";

import { defineConfig } from "vite";

import { licences } from "./build/licences";
import { sources } from "./build/sources";

export default defineConfig({
  publicDir: false,
  resolve: { alias: { zarrita: join(import.meta.dirname, "build", "no_zarr.ts") } },
  build: {
    outDir: "../src/spanseg/serve/page",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 4000,
  },
  plugins: [licences(), sources()],
});
