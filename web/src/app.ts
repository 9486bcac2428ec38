/** The page as a whole: what the server says is shown, what the user does is told to the server. */

import type { Change, State, Structure, Voxel } from "./contract";
import { display } from "./display";
import { type Shortcut, listen } from "./keys";
import { volume } from "./labels";
import { page } from "./page";
import { type Layout, Planes } from "./planes";
import { MODES, type Mode, Pointing, type Told } from "./pointing";
import { Gone, Refused, type Server } from "./server";
import { Solid } from "./solid";
import { complain, say, sayBusy, sayFree } from "./status";
import { StructureList } from "./structures";

const ASK_AGAIN_MS = 1500;
const OLD_STATE = 409;
const FLUID = "CSF"; // lies round the brain and would hide it in 3D
const LARGER = 1.25;

export class App {
  readonly planes = new Planes(page.planes);
  private readonly solid = new Solid(page.solid);
  private readonly pointing = new Pointing(this.planes, page.marks, page.views, page.planes);
  private readonly list = new StructureList();
  private readonly redisplay = display(this.planes, () => this.chosen);
  state: State | null = null;
  chosen: number | null = null;
  busy = false;
  private gone = false;

  constructor(private readonly server: Server) {
    this.pointing.onTold = (told) => void this.tell(told);
    this.pointing.onHover = () => this.readOut();
    this.planes.onCrosshair = () => this.readOut();
    this.list.onChoose = (id) => this.choose(id);
    this.buildModes();
    listen(this.shortcuts());
    page.next.addEventListener("click", () => this.goNext());
    page.undo.addEventListener("click", () => void this.undo());
    page.redo.addEventListener("click", () => void this.redo());
    page.save.addEventListener("click", () => void this.save());
    page.export.addEventListener("click", () => void this.export());
    page.help.addEventListener("click", () => page.keys.showModal());
    page.views.addEventListener("wheel", (event) => this.wheel(event), { capture: true, passive: false });
    page.doubt.addEventListener("change", () => void this.showDoubt());
    page.solidChosen.addEventListener("change", () => this.chooseSolid());
    page.casePicker.addEventListener("change", () => void this.open(page.casePicker.value));
  }

  /** Connect, and open a scan if it is clear which. */
  async start(): Promise<void> {
    await this.planes.attach();
    await this.solid.attach();
    await this.during("Connecting", () => this.connect());
  }

  private async connect(): Promise<void> {
    await this.server.greet();
    const { cases, open } = await this.server.cases();
    page.casePicker.replaceChildren(
      new Option("choose a scan", "", true, true),
      ...cases.map(({ name, edited }) => new Option(edited ? `${name} (edited)` : name, name)),
    );
    page.casePicker.options[0].disabled = true;
    page.caseField.hidden = cases.length < 2;
    const name = open ?? (cases.length === 1 ? cases[0].name : null);
    page.invitation.hidden = name !== null;
    page.invitation.textContent = cases.length ? "Choose a scan above." : "The server was given no scan.";
    if (name !== null) await this.load(name, open === name);
  }

  async open(name: string): Promise<void> {
    await this.during(`Opening ${name}`, () => this.load(name, false));
    if (this.state) page.casePicker.value = this.state.case;
  }

  private async load(name: string, isOpen: boolean): Promise<void> {
    sayBusy(isOpen ? `Loading ${name}` : `Opening ${name}; a scan without labels is segmented first`);
    const state = isOpen ? await this.server.state() : await this.server.open(name);
    sayBusy(`Loading ${name}`);
    const [image, labels] = await Promise.all([this.server.image("image"), this.server.image("labels")]);
    if (!state.structures.some(({ id }) => id === this.chosen)) this.chosen = null;
    this.redisplay();
    await this.planes.show(image, labels, state);
    this.pointing.told = null;
    page.invitation.hidden = true;
    page.caseName.textContent = page.caseField.hidden ? state.case : "";
    page.casePicker.value = state.case;
    document.title = `${state.case} · spanseg`;
    this.follow(state);
    this.redisplay();
    this.chooseSolid();
    if (page.doubt.checked) await this.planes.showDoubt(await this.server.image("doubt"));
  }

  choose(id: number): void {
    this.chosen = id;
    this.pointing.told = null;
    if (this.state) this.list.show(this.state.structures, id);
    this.list.reveal(id);
    this.advise();
    this.redisplay();
    if (page.solidChosen.checked) this.chooseSolid();
  }

  /** Choose the structure under the mouse, or else under the crosshair. */
  private pick(): void {
    const voxel = this.under();
    const found = voxel && this.structureAt(voxel);
    if (found) this.choose(found.id);
  }

  private async tell(told: Told): Promise<void> {
    const { state, chosen } = this;
    if (!state) return;
    if (chosen === null) {
      complain("Choose the structure to correct first: click it in the list, or press P over it.");
      return;
    }
    const name = this.structure(chosen)?.name ?? chosen;
    await this.during(`Correcting ${name}`, async () => {
      this.pointing.told = told;
      if (told.kind === "point") this.planes.crosshair = told.voxels[0];
      const change = await this.server.prompt({ structure: chosen, ...told }, state.events);
      await this.take(change, `${name}: ${this.counted(change)}`);
    });
  }

  private undo(): Promise<void> {
    return this.step("undo", "Undoing", "Undone");
  }

  private redo(): Promise<void> {
    return this.step("redo", "Redoing", "Redone");
  }

  private async step(way: "undo" | "redo", doing: string, done: string): Promise<void> {
    const { state } = this;
    if (!state || !(way === "undo" ? state.can_undo : state.can_redo)) return;
    await this.during(doing, async () => {
      const change = await this.server[way](state.events);
      this.pointing.told = null;
      await this.take(change, `${done}: ${this.counted(change)}`);
    });
  }

  private async save(): Promise<void> {
    if (!this.state) return;
    await this.during("Saving", async () => {
      const { files, state } = await this.server.save();
      this.follow(state);
      say(`Saved ${files.join(", ")}`);
    });
  }

  private async export(): Promise<void> {
    if (!this.state) return;
    await this.during("Exporting", async () => {
      const { folder, state } = await this.server.export();
      this.follow(state);
      say(`Exported for spanseg adapt: ${folder}`);
    });
  }

  private goNext(): void {
    const next = this.state?.next;
    if (!next) return;
    this.choose(next.structure);
    this.planes.crosshair = next.voxel;
    const name = this.structure(next.structure)?.name ?? "the label";
    say(`The largest piece of doubt (${next.doubt.toFixed(2)}): look whether ${name} is right here.`);
  }

  private async showDoubt(): Promise<void> {
    if (!this.state) return;
    await this.during("Loading the doubt map", async () => {
      await this.planes.showDoubt(page.doubt.checked ? await this.server.image("doubt") : null);
      this.redisplay();
    });
  }

  private async take(change: Change, said: string): Promise<void> {
    this.planes.apply(change);
    this.solid.refresh();
    this.follow(change.state);
    say(said);
    if (page.doubt.checked) await this.planes.showDoubt(await this.server.image("doubt"));
  }

  /** Show what the server says about the scan. */
  private follow(state: State): void {
    this.state = state;
    this.list.show(state.structures, this.chosen);
    page.save.classList.toggle("unsaved", !state.saved && state.events > 0);
    page.notesList.replaceChildren(...[...state.notes, `Corrected by ${state.corrector}`].map(item));
    this.enable();
    this.advise();
    this.readOut();
  }

  /** Do one thing at a time, say what it is, and turn its failure into a sentence. */
  private async during(doing: string, work: () => Promise<void>): Promise<void> {
    if (this.busy || this.gone) return;
    this.busy = true;
    sayBusy(doing);
    say("");
    this.enable();
    try {
      await work();
    } catch (failure) {
      this.pointing.told = null;
      await this.fail(failure);
    } finally {
      this.busy = false;
      sayFree();
      this.enable();
      this.pointing.draw();
    }
  }

  private async fail(failure: unknown): Promise<void> {
    if (failure instanceof Gone) {
      this.waitForServer();
    } else if (failure instanceof Refused) {
      complain(failure.message);
      if (failure.status === OLD_STATE && this.state) await this.catchUp().catch(() => this.waitForServer());
    } else {
      complain(`The page failed: ${failure instanceof Error ? failure.message : String(failure)}. Reload it.`);
      console.error(failure);
    }
  }

  /** Take over the server's labels where they went on without this page. */
  private async catchUp(): Promise<void> {
    const state = await this.server.state();
    if (state.case !== this.state?.case) {
      await this.load(state.case, true);
      return;
    }
    await this.planes.replaceLabels(await this.server.image("labels"), state);
    this.solid.refresh();
    this.follow(state);
  }

  private waitForServer(): void {
    this.gone = true;
    complain("The server does not answer. Nothing that was clicked is lost; the page goes on when it is back.");
    const ask = async () => {
      try {
        await this.server.greet();
        if (this.state) await this.catchUp();
      } catch (failure) {
        if (failure instanceof Refused && failure.status === 403) {
          complain("The server was started anew; open the address that it printed.");
        } else if (failure instanceof Refused) {
          complain(failure.message);
        }
        window.setTimeout(ask, ASK_AGAIN_MS);
        return;
      }
      this.gone = false;
      say("The server is back.");
      this.enable();
      if (!this.state) await this.during("Connecting", () => this.connect());
    };
    window.setTimeout(ask, ASK_AGAIN_MS);
  }

  private enable(): void {
    const { state } = this;
    const free = state !== null && !this.busy && !this.gone;
    page.undo.disabled = !(free && state.can_undo);
    page.redo.disabled = !(free && state.can_redo);
    page.next.disabled = !(free && state.next);
    page.save.disabled = page.export.disabled = page.doubt.disabled = !free;
    page.casePicker.disabled = this.busy || this.gone;
    document.body.classList.toggle("working", this.busy);
  }

  private buildModes(): void {
    const buttons = MODES.map((mode) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("role", "radio");
      button.textContent = mode.title;
      button.title = `${mode.advice} (${mode.key.toUpperCase()})`;
      button.dataset.mode = mode.name;
      button.addEventListener("click", () => this.enter(mode));
      return button;
    });
    page.modes.replaceChildren(...buttons);
    this.enter(MODES[0]);
  }

  private enter(mode: Mode): void {
    this.pointing.mode = mode;
    page.views.dataset.mode = mode.name;
    for (const button of page.modes.querySelectorAll("button")) {
      button.setAttribute("aria-checked", String(button.dataset.mode === mode.name));
    }
    this.advise();
  }

  private advise(): void {
    const { mode } = this.pointing;
    const first = mode.sends && this.chosen === null ? "Choose a structure first. " : "";
    page.advice.textContent = first + mode.advice;
  }

  private chooseSolid(): void {
    const { chosen, state } = this;
    if (!state) return;
    const only = page.solidChosen.checked && chosen !== null;
    const shown = state.structures.filter(({ id, name }) => (only ? id === chosen : name !== FLUID));
    this.solid.show(this.planes.labelImage, shown);
  }

  private arrange(layout: Layout): void {
    page.views.dataset.layout = layout;
    this.planes.layout = layout;
  }

  private walk(axis: 0 | 1 | 2, by: number): void {
    if (this.planes.shown) this.planes.crosshair = this.planes.grid.moved(this.planes.crosshair, axis, by);
  }

  /** With Ctrl the wheel enlarges, as in maps; NiiVue has it change the slice. */
  private wheel(event: WheelEvent): void {
    if (!event.ctrlKey || event.target !== page.planes) return;
    event.preventDefault();
    event.stopPropagation();
    this.planes.enlarge(event.deltaY < 0 ? LARGER : 1 / LARGER);
  }

  private shortcuts(): Shortcut[] {
    const toggle = (box: HTMLInputElement) => () => !box.disabled && box.click();
    return [
      ...MODES.map((mode) => ({ keys: [mode.key.toUpperCase()], does: mode.title, run: () => this.enter(mode) })),
      { keys: ["P"], does: "choose the structure under the mouse or crosshair", run: () => this.pick() },
      { keys: ["N"], does: "where next: go to the largest piece of doubt", run: () => this.goNext() },
      { keys: ["U"], does: "doubt map on and off", run: toggle(page.doubt) },
      { keys: ["H"], does: "labels on and off", run: toggle(page.labels) },
      { keys: ["O"], does: "outlines on and off", run: toggle(page.outlines) },
      { keys: ["1"], does: "axial plane alone", run: () => this.arrange("axial") },
      { keys: ["2"], does: "coronal plane alone", run: () => this.arrange("coronal") },
      { keys: ["3"], does: "sagittal plane alone", run: () => this.arrange("sagittal") },
      { keys: ["4"], does: "all planes and 3D", run: () => this.arrange("all") },
      { keys: ["+", "="], does: "enlarge the planes round the crosshair", run: () => this.planes.enlarge(LARGER) },
      { keys: ["-"], does: "make the planes smaller again", run: () => this.planes.enlarge(1 / LARGER) },
      { keys: ["←"], does: "crosshair to the person's left", run: () => this.walk(0, -1) },
      { keys: ["→"], does: "crosshair to the person's right", run: () => this.walk(0, 1) },
      { keys: ["↑"], does: "crosshair forward", run: () => this.walk(1, 1) },
      { keys: ["↓"], does: "crosshair back", run: () => this.walk(1, -1) },
      { keys: ["Page up"], does: "crosshair up", run: () => this.walk(2, 1) },
      { keys: ["Page down"], does: "crosshair down", run: () => this.walk(2, -1) },
      { keys: ["Ctrl+Z"], does: "undo", run: () => void this.undo() },
      { keys: ["Ctrl+Shift+Z", "Ctrl+Y"], does: "redo", run: () => void this.redo() },
      { keys: ["Ctrl+S"], does: "save", run: () => void this.save() },
      { keys: ["Esc"], does: "give up a box or scribble", run: () => this.pointing.cancel() },
      { keys: ["?"], does: "this list", run: () => page.keys.showModal() },
    ];
  }

  /** Say what lies under the mouse, or else under the crosshair. */
  private readOut(): void {
    const voxel = this.under();
    if (!voxel) {
      page.readout.textContent = "";
      return;
    }
    const found = this.structureAt(voxel);
    const what = found ? `${found.name} · ${volume(found.mm3)}` : "no structure";
    page.readout.textContent = `${what} · voxel ${voxel.join(", ")}`;
  }

  private under(): Voxel | null {
    if (!this.planes.shown) return null;
    return this.pointing.hovered ?? this.planes.crosshair;
  }

  private structureAt(voxel: Voxel): Structure | undefined {
    const id = this.planes.labelAt(voxel);
    return id > 0 ? this.structure(id) : undefined;
  }

  private structure(id: number): Structure | undefined {
    return this.state?.structures.find((structure) => structure.id === id);
  }

  private counted({ changed }: Change): string {
    if (changed === 0) return "nothing changed";
    return changed === 1 ? "1 voxel changed" : `${changed.toLocaleString("en")} voxels changed`;
  }
}

function item(text: string): HTMLLIElement {
  const row = document.createElement("li");
  row.textContent = text;
  return row;
}
