import { App } from "./app";
import { Server } from "./server";

declare global {
  interface Window {
    /** For tests, and for those who are curious. */
    spanseg: App;
  }
}

const token = new URLSearchParams(window.location.search).get("token") ?? "";
window.spanseg = new App(new Server(token));
void window.spanseg.start();
