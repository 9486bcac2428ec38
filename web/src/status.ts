/** The line at the bottom: what was done, what went wrong, what is being done. */

import { page } from "./page";

export function say(sentence: string): void {
  page.error.textContent = "";
  page.message.textContent = sentence;
}

export function complain(sentence: string): void {
  page.message.textContent = "";
  page.error.textContent = sentence;
}

export function sayBusy(doing: string): void {
  page.busyText.textContent = `${doing} …`;
  page.busy.hidden = false;
}

export function sayFree(): void {
  page.busy.hidden = true;
}
