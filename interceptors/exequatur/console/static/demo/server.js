// Asks the console. What it refuses is a Refused, with a sentence for the visitor.

export class Refused extends Error {
  constructor(message, why, field) {
    super(message);
    this.why = why;
    this.field = field;
  }
}

async function asked(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { Accept: "application/json", ...options.headers } });
  } catch {
    throw new Refused("The console does not answer. Nothing was done.", "away");
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    // Not an answer of this console.
  }
  if (!response.ok || body === null) {
    const text = [body?.text, body?.step].filter(Boolean).join(" ");
    throw new Refused(text || `The console answered with ${response.status}. Load the page again.`, body?.why, body?.field);
  }
  return body;
}

export const get = (path) => asked(path, {});

export function post(path, body) {
  return asked(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: {
      "Content-Type": "application/json",
      "X-CSRF-Token": document.body.dataset.csrf ?? "",
      "X-Demo-Token": document.getElementById("demo").dataset.token,
    },
  });
}
