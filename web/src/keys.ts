/** Keyboard shortcuts, and the list of them. */

import { page } from "./page";

export interface Shortcut {
  /** As written in the list: "Ctrl+Shift+Z", "P", "←". */
  keys: string[];
  does: string;
  run: () => void;
}

const NAMES: Record<string, string> = {
  arrowleft: "←",
  arrowright: "→",
  arrowup: "↑",
  arrowdown: "↓",
  pageup: "page up",
  pagedown: "page down",
  escape: "esc",
};

const MOUSE: [string, string][] = [
  ["left button", "what the mode says"],
  ["wheel", "next and previous slice; in 3D nearer and farther"],
  ["Ctrl+wheel", "enlarge the planes round the crosshair"],
  ["right button, drag", "window (up, down) and level (left, right)"],
  ["middle button, drag", "move the planes"],
  ["double click", "reset window and level"],
];

export function listen(shortcuts: Shortcut[]): void {
  const known = new Map(shortcuts.flatMap((shortcut) => shortcut.keys.map((key) => [key.toLowerCase(), shortcut.run])));
  window.addEventListener(
    "keydown",
    (event) => {
      const typing = event.target instanceof HTMLInputElement && event.target.type === "search";
      const sliding = event.target instanceof HTMLInputElement && event.target.type === "range";
      const picking = event.target instanceof HTMLSelectElement;
      const name = written(event);
      const withControl = name.startsWith("ctrl+");
      if (page.keys.open || ((typing || picking) && !withControl)) return;
      if (event.target instanceof HTMLCanvasElement && event.key !== "Tab") event.stopPropagation(); // NiiVue has keys of its own
      const run = known.get(name);
      if (!run || event.altKey || (sliding && name.length === 1 && "←→↑↓".includes(name))) return;
      event.preventDefault();
      run();
    },
    { capture: true },
  );
  window.addEventListener("keyup", (event) => event.target instanceof HTMLCanvasElement && event.stopPropagation(), {
    capture: true,
  });
  describe(shortcuts);
}

function written(event: KeyboardEvent): string {
  const key = event.key.toLowerCase();
  const name = NAMES[key] ?? key;
  if (!event.ctrlKey && !event.metaKey) return name;
  return `ctrl+${event.shiftKey ? "shift+" : ""}${name}`;
}

function describe(shortcuts: Shortcut[]): void {
  const rows: [string, string][] = [...shortcuts.map(({ keys, does }): [string, string] => [keys.join(" "), does]), ...MOUSE];
  page.keysList.replaceChildren(
    ...rows.flatMap(([keys, does]) => {
      const term = document.createElement("dt");
      const meaning = document.createElement("dd");
      term.textContent = keys;
      meaning.textContent = does;
      return [term, meaning];
    }),
  );
}
