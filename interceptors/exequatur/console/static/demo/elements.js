// Elements, made of text.

export const byId = (id) => document.getElementById(id);

/** Makes an element: attributes by name, `text` and `on` apart; children are elements or text. */
export function made(tag, { text, on, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  for (const [kind, listener] of Object.entries(on ?? {})) element.addEventListener(kind, listener);
  element.append(...children.filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

/** Tells it to who cannot see it. */
export function say(text) {
  byId("said").textContent = text;
}

/** A text without control and direction characters, which could make it look like another one. */
export function shown(text) {
  return String(text ?? "").replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu, (one) =>
    one === "\n" || one === "\t" ? one : `\\u${one.codePointAt(0).toString(16).padStart(4, "0")}`,
  );
}
