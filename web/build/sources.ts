/** Writes beside the page what it was built from, so that a test can tell a stale page without Node. */

import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join, relative, sep } from "node:path";

import type { Plugin } from "vite";

const ROOT = join(import.meta.dirname, "..");

export function sources(): Plugin {
  return {
    name: "sources",
    generateBundle() {
      const lines = files(ROOT).map((path) => `${hash(path)}  ${relative(ROOT, path).split(sep).join("/")}\n`);
      this.emitFile({ type: "asset", fileName: "sources.sha256", source: lines.sort(byPath).join("") });
    },
  };
}

function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter(({ name }) => name !== "node_modules")
    .flatMap((entry) => (entry.isDirectory() ? files(join(folder, entry.name)) : [join(folder, entry.name)]));
}

/** Of the text with line ends as git stores them. */
function hash(path: string): string {
  return createHash("sha256").update(readFileSync(path, "utf8").replaceAll("\r\n", "\n")).digest("hex");
}

function byPath(one: string, other: string): number {
  return one.slice(66) < other.slice(66) ? -1 : 1;
}
