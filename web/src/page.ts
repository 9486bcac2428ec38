/** The elements of index.html, found once and typed. */

function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no ${type.name} with the id ${id}`);
  return found;
}

const button = (id: string) => element(id, HTMLButtonElement);
const input = (id: string) => element(id, HTMLInputElement);
const canvas = (id: string) => element(id, HTMLCanvasElement);
const any = (id: string) => element(id, HTMLElement);

export const page = {
  caseField: any("case-field"),
  casePicker: element("case", HTMLSelectElement),
  caseName: any("case-name"),
  modes: any("modes"),
  next: button("next"),
  undo: button("undo"),
  redo: button("redo"),
  save: button("save"),
  export: button("export"),
  help: button("help"),
  views: any("views"),
  planes: canvas("planes"),
  marks: canvas("marks"),
  solidFrame: any("solid-frame"),
  solid: canvas("solid"),
  solidChosen: input("solid-chosen"),
  invitation: any("invitation"),
  chosenSwatch: any("chosen-swatch"),
  chosenName: any("chosen-name"),
  chosenVolume: any("chosen-volume"),
  advice: any("advice"),
  opacity: input("opacity"),
  window: input("window"),
  level: input("level"),
  autoWindow: button("auto-window"),
  labels: input("labels"),
  outlines: input("outlines"),
  doubt: input("doubt"),
  mirrored: input("mirrored"),
  filter: input("filter"),
  structures: any("structures"),
  notesList: any("notes-list"),
  readout: any("readout"),
  message: any("message"),
  error: any("error"),
  busy: any("busy"),
  busyText: any("busy-text"),
  keys: element("keys", HTMLDialogElement),
  keysList: any("keys-list"),
};
