// Views, forms, dialogs and messages: what app.js shows, and nothing that it knows.
//
// Values become text, never HTML, so that no name of a device or of a token can be a script.

const message = document.getElementById("message");
const waiting = document.getElementById("waiting");
const REASONS = {
  InvalidStateError: "This device has a passkey for this account already.",
  NotAllowedError: "No passkey was used.",
  SecurityError: "Passkeys work only at the address that the service is configured for: with `make run` that is localhost.",
  TypeError: "The service cannot be reached. Try again.",
};
let countdown;

/**
 * Write values into the elements of a part of the page that name them: `data-text` shows a value,
 * `data-href` makes it a link, `data-value` sends it with a form, `data-label` tells which row a button
 * is for, and `data-if` hides what has no value.
 */
export function fill(part, values) {
  const each = (kind, act) => {
    for (const element of part.querySelectorAll(`[data-${kind}]`)) {
      const name = element.dataset[kind];
      if (name in values) act(element, values[name]);
    }
  };
  each("text", (element, value) => (element.textContent = value));
  each("href", (element, value) => (element.href = value));
  each("value", (element, value) => (element.value = value));
  each("label", (element, value) => (element.ariaLabel = `${element.textContent}: ${value}`));
  each("if", (element, value) => toggle(element, Boolean(value)));
}

/** Show or hide an element. A field that is hidden is neither required nor sent. */
export function toggle(element, isShown) {
  element.hidden = !isShown;
  for (const field of element.querySelectorAll("input")) field.disabled = !isShown;
}

/** Show one row for each item in the list of a part of the page. */
export function list(part, items) {
  const ul = part.matches("ul") ? part : part.querySelector("ul");
  const template = ul.querySelector("template");
  const rows = items.map((values) => {
    const row = template.content.cloneNode(true);
    fill(row, values);
    return row;
  });
  ul.replaceChildren(template, ...rows);
}

/** Show one section, and move the focus to its heading, which screen readers then read. */
export function show(id) {
  const view = document.getElementById(id);
  if (!view.hidden) return;
  const isFirst = !document.querySelector("main > section:not([hidden])");
  for (const section of document.querySelectorAll("main > section")) section.hidden = section !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${id}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = view.querySelector("h2");
  heading.tabIndex = -1;
  document.title = `${heading.textContent} – ${document.querySelector("h1").firstChild.textContent.trim()}`;
  if (!isFirst) heading.focus();
}

/** Run the action that a form names when it is submitted, and show its errors beside their fields. */
export function onSubmit(actions) {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const action = actions[form.dataset.action];
    if (!action) return; // The browser closes a dialog.
    event.preventDefault();
    submit(form, action);
  });
}

async function submit(form, action) {
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  say("");
  explain(form);
  try {
    await action(Object.fromEntries(new FormData(form)));
    form.reset();
    form.closest("details")?.removeAttribute("open");
  } catch (error) {
    explain(form, error);
  } finally {
    form.ariaBusy = "false";
  }
}

/** Show each error of a problem document at its field, and the others above the button; or none. */
function explain(form, error) {
  const fields = [...form.querySelectorAll("label input, label select")];
  const unplaced = new Set(error?.problem?.errors ?? (error ? [{ detail: reason(error) }] : []));
  for (const field of fields) {
    const own = [...unplaced].filter((each) => each.field === field.name);
    own.forEach((each) => unplaced.delete(each));
    const place = errorPlace(form, field.name, (made) => field.closest("label").after(made));
    write(place, own);
    field.setAttribute("aria-invalid", String(own.length > 0));
    const described = (field.getAttribute("aria-describedby") ?? "").split(" ");
    field.setAttribute("aria-describedby", [...new Set([...described, place.id])].join(" ").trim());
  }
  write(errorPlace(form, "form", (made) => form.querySelector("button").before(made)), [...unplaced]);
  form.querySelector("[aria-invalid=true]")?.focus();
}

function write(place, errors) {
  place.textContent = errors.map(({ detail }) => detail).join(" ");
}

/** Return the element for the errors of a field, which is made once. */
function errorPlace(form, name, insert) {
  let place = form.querySelector(`.error[data-of=${name}]`);
  if (!place) {
    const id = `error-${document.querySelectorAll(".error").length}`;
    place = Object.assign(document.createElement("p"), { id, className: "error", role: "alert" });
    place.dataset.of = name;
    insert(place);
  }
  return place;
}

/** Return why something failed, in a sentence; an act that its user cancelled needs none. */
export function reason(error) {
  if (error.name === "AbortError") return "";
  const later = error.retryAfter ? ` Try again in ${duration(error.retryAfter)}.` : "";
  return (REASONS[error.name] ?? error.message) + later;
}

function duration(seconds) {
  return seconds < 120 ? `${seconds} seconds` : `${Math.ceil(seconds / 60)} minutes`;
}

/** Show a message until the next act, with a link if it has one. */
export function say(text, link) {
  message.replaceChildren(text, ...(link ? [" ", link] : []));
}

/** Show that a call waits, and count the seconds down; 0 ends it. */
export function showWait(seconds) {
  clearInterval(countdown);
  waiting.textContent = "";
  if (!seconds) return;
  const left = document.createElement("span");
  left.ariaHidden = "true"; // A screen reader reads the sentence once, and not each second.
  const tick = () => (left.textContent = ` (${seconds--} s)`);
  tick();
  waiting.append("The service asks to wait. It goes on by itself.", left);
  countdown = setInterval(() => seconds > 0 && tick(), 1000);
}

/** Show a dialog; resolve when it is closed with "done", and reject when its user cancels. */
export function ask(id, values) {
  const dialog = document.getElementById(id);
  fill(dialog, values);
  for (const form of dialog.querySelectorAll("form")) form.reset();
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    const cancelled = () => reject(new DOMException("Cancelled.", "AbortError"));
    const settle = () => (dialog.returnValue === "done" ? resolve() : cancelled());
    dialog.addEventListener("close", settle, { once: true });
  });
}

/** Let the browser save a text as a file. */
export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Return a moment of the API in the language and the time zone of the browser. */
export function date(text) {
  return text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "never";
}
