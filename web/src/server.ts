/** Requests to the server that this page came from. */

import { API, type Cases, type Change, type Prompt, type State } from "./contract";

/** The server understood, and said no in one sentence. */
export class Refused extends Error {
  constructor(
    sentence: string,
    readonly status: number,
  ) {
    super(sentence);
  }
}

/** Nobody answers. */
export class Gone extends Error {}

export class Server {
  constructor(private readonly token: string) {}

  /** Fail with a sentence unless the server speaks this page's language. */
  async greet(): Promise<void> {
    const health = await this.json<{ spanseg: string; api: number }>("/api/health");
    if (health.api !== API) {
      throw new Refused(
        `This page speaks interface ${API} and the server (spanseg ${health.spanseg}) interface ${health.api}; reload the page.`,
        409,
      );
    }
  }

  cases(): Promise<Cases> {
    return this.json("/api/cases");
  }

  state(): Promise<State> {
    return this.json("/api/state");
  }

  open(name: string): Promise<State> {
    return this.json("/api/open", { case: name });
  }

  prompt(prompt: Prompt, events: number): Promise<Change> {
    return this.json("/api/prompt", { ...prompt, events });
  }

  undo(events: number): Promise<Change> {
    return this.json("/api/undo", { events });
  }

  redo(events: number): Promise<Change> {
    return this.json("/api/redo", { events });
  }

  save(): Promise<{ files: string[]; state: State }> {
    return this.json("/api/save", {});
  }

  export(): Promise<{ folder: string; state: State }> {
    return this.json("/api/export", {});
  }

  /** One of the images: image, labels or doubt. */
  async image(name: string): Promise<File> {
    const answer = await this.ask(`/api/${name}.nii.gz`);
    try {
      return new File([await answer.blob()], `${name}.nii.gz`);
    } catch {
      throw new Gone();
    }
  }

  private async json<T>(path: string, body?: object): Promise<T> {
    const answer = await this.ask(path, body);
    try {
      return (await answer.json()) as T;
    } catch {
      throw new Gone();
    }
  }

  private async ask(path: string, body?: object): Promise<Response> {
    const headers: Record<string, string> = { "X-Spanseg-Token": this.token };
    if (body) headers["Content-Type"] = "application/json";
    let answer: Response;
    try {
      answer = await fetch(path, {
        method: body ? "POST" : "GET",
        headers,
        body: body && JSON.stringify(body),
        cache: "no-store",
      });
    } catch {
      throw new Gone();
    }
    if (!answer.ok) throw new Refused(await sentence(answer), answer.status);
    return answer;
  }
}

async function sentence(answer: Response): Promise<string> {
  try {
    const { error } = (await answer.json()) as { error?: unknown };
    if (typeof error === "string") return error;
  } catch {
    // not JSON: say what is known
  }
  return `The server answered ${answer.status} ${answer.statusText}.`;
}
