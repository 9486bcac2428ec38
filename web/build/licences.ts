/** Writes the licences of everything that was bundled beside the page. */

import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

import type { Plugin } from "vite";

const KEPT = join(import.meta.dirname, "..", "licences"); // of packages that bring no file of their own

export function licences(): Plugin {
  return {
    name: "licences",
    generateBundle(_, bundle) {
      const modules = Object.values(bundle).flatMap((part) => (part.type === "chunk" ? Object.keys(part.modules) : []));
      const folders = new Set(modules.flatMap((path) => folderOf(path) ?? []));
      const source = [...folders].sort().map(entry).join(`\n${"-".repeat(80)}\n\n`);
      this.emitFile({ type: "asset", fileName: "licences.txt", source });
    },
  };
}

function folderOf(path: string): string | undefined {
  return /^.*\/node_modules\/(@[^/]+\/)?[^/]+/.exec(path.replace(/^\0/, ""))?.[0];
}

function entry(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const own = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
  const kept = join(KEPT, `${name.replace("/", "-")}.txt`);
  if (!own && !existsSync(kept)) throw new Error(`${name} brings no licence file: put its text into ${kept}`);
  return `${name} ${version} (${license})\n\n${readFileSync(own ? join(folder, own) : kept, "utf8").trim()}\n`;
}
