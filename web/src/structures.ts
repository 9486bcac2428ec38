/** The list of structures: colours, names, volumes, a filter, and the chosen one. */

import type { Structure } from "./contract";
import { size, volume } from "./labels";
import { page } from "./page";

export class StructureList {
  private readonly rows = new Map<number, HTMLButtonElement>();
  onChoose: (id: number) => void = () => {};

  constructor() {
    page.filter.addEventListener("input", () => this.filter());
    page.filter.addEventListener("keydown", ({ key }) => key === "Escape" && page.planes.focus()); // keys work again
  }

  /** Show structures with their volumes; the rows stay where they are, and so does the focus. */
  show(structures: Structure[], chosen: number | null): void {
    const kinds = structures.filter(({ id }) => id > 0);
    if (kinds.length !== this.rows.size || kinds.some(({ id }) => !this.rows.has(id))) this.build(kinds);
    for (const { id, mm3 } of kinds) {
      const row = this.rows.get(id)!;
      row.querySelector(".volume")!.textContent = mm3 > 0 ? size(mm3) : "–";
      row.classList.toggle("absent", mm3 <= 0);
      row.setAttribute("aria-pressed", String(id === chosen));
    }
    this.showChosen(kinds.find(({ id }) => id === chosen));
  }

  /** Bring the chosen row into sight. */
  reveal(id: number): void {
    this.rows.get(id)?.scrollIntoView({ block: "nearest" });
  }

  private showChosen(structure?: Structure): void {
    page.chosenSwatch.style.background = structure ? `rgb(${structure.colour})` : "transparent";
    page.chosenName.textContent = structure?.name ?? "No structure chosen";
    page.chosenVolume.textContent = structure
      ? volume(structure.mm3)
      : "Click one in the list, or press P over it in a plane.";
  }

  private build(structures: Structure[]): void {
    this.rows.clear();
    page.structures.replaceChildren(
      ...structures.map((structure) => {
        const row = document.createElement("button");
        const swatch = document.createElement("span");
        const name = document.createElement("span");
        const mm3 = document.createElement("span");
        row.type = "button";
        row.dataset.id = String(structure.id);
        swatch.className = "swatch";
        swatch.style.background = `rgb(${structure.colour})`;
        name.className = "name";
        name.textContent = structure.name;
        mm3.className = "volume";
        row.append(swatch, name, mm3);
        row.addEventListener("click", () => this.onChoose(structure.id));
        this.rows.set(structure.id, row);
        const item = document.createElement("li");
        item.append(row);
        return item;
      }),
    );
    this.filter();
  }

  private filter(): void {
    const words = page.filter.value.toLowerCase().split(/\s+/);
    for (const row of this.rows.values()) {
      const text = `${row.dataset.id} ${row.querySelector(".name")!.textContent}`.toLowerCase();
      row.parentElement!.hidden = !words.every((word) => text.includes(word));
    }
  }
}
