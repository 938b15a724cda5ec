// One question at a time. An answer is in the store before the next question shows; texts are text, never markup.
"use strict";

const KEYS = {
  ArrowLeft: "left", h: "left", 1: "left", ArrowRight: "right", l: "right", 2: "right",
  t: "tie", ArrowDown: "tie", s: "skip", " ": "skip",
};
const SAID = { left: "1 is better", right: "2 is better", tie: "tie", skip: "skipped" };
const UNREAD = 200; // milliseconds in which nobody has read two answers: the second press of a double one
const AGAIN = 2000; // milliseconds before an answer that could not be stored is sent again

const $ = (id) => document.getElementById(id);
const pageToken = document.querySelector("meta[name=page-token]").content;
let shown = null; // the question on the page
let shownAt = 0;
let pending = false;

class Refused extends Error {} // sending it again would not help

async function call(path, body) {
  const post = body && { method: "POST", headers: { "x-page-token": pageToken }, body: JSON.stringify(body) };
  let reply;
  try {
    reply = await fetch(path, post || {});
  } catch {
    throw new Error("spar does not answer. Is it still running?");
  }
  if (reply.ok) return reply.json();
  const text = await reply.text();
  const problem = text.startsWith("{") ? JSON.parse(text).problem : text;
  throw new (reply.status === 503 ? Error : Refused)(problem);
}

async function persist(path, body) {
  for (;;) {
    try {
      return await call(path, body);
    } catch (error) {
      if (error instanceof Refused) throw error;
      $("problem").textContent = `${body ? "Not stored yet" : "Not loaded yet"}: ${error.message} Trying again …`;
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }
}

async function exchange(path, body) {
  pending = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    const state = await persist(path, body);
    $("problem").textContent = "";
    show(state);
    return state;
  } catch (error) {
    $("problem").textContent = error.message;
    return null;
  } finally {
    pending = false;
    document.body.removeAttribute("aria-busy");
  }
}

async function choose(choice) {
  if (!shown || pending || performance.now() - shownAt < UNREAD) return;
  const state = await exchange("/answer", { question: shown.name, choice });
  if (!state) return;
  $("told").textContent = state.kept
    ? `${choice === "skip" ? "Skipped" : `Stored: ${SAID[choice]}`}.`
    : "This pair was already judged elsewhere; the earlier judgement stays.";
}

function show(state) {
  shown = state.question;
  shownAt = performance.now();
  const { done, total, skipped, per_minute: rate } = state;
  $("progress").textContent =
    `${done} of ${total}` + (skipped ? ` · ${skipped} skipped` : "") + (rate ? ` · ${rate} per minute` : "");
  $("bar").max = total;
  $("bar").value = done;
  for (const id of ["answers", "choices", "help"]) $(id).hidden = !shown;
  $("end").hidden = Boolean(shown);
  $("prompt").hidden = !shown;
  if (!shown) {
    $("asked").textContent = "Done";
    $("end").textContent =
      `All ${done} are judged and stored` + (skipped ? `, except ${skipped} skipped, which are asked again next time` : "") +
      ". End spar with Ctrl-C in its terminal, and close this page.";
    return;
  }
  $("asked").textContent = shown.asked;
  $("prompt").replaceChildren(...turns(shown.prompt));
  $("left").textContent = shown.left;
  $("right").textContent = shown.right;
  window.scrollTo(0, 0);
  $("asked").focus({ preventScroll: true }); // not a button: the space bar would press it again
}

function turns(prompt) {
  return prompt.flatMap(({ role, content }) => {
    const title = document.createElement("p");
    title.className = "role";
    title.textContent = role;
    const text = document.createElement("div");
    text.className = "text";
    text.dir = "auto";
    text.textContent = content;
    return prompt.length > 1 || role !== "user" ? [title, text] : [text];
  });
}

function scrolls() {
  return document.documentElement.scrollHeight > window.innerHeight;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!choice || !shown) return;
  if (event.key === " " && event.target instanceof HTMLButtonElement) return; // it presses the button
  if ((event.key === " " || event.key === "ArrowDown") && scrolls()) return;
  event.preventDefault();
  if (!event.repeat) choose(choice);
});

for (const button of document.querySelectorAll("button")) {
  button.addEventListener("click", () => choose(button.dataset.choice));
}

window.addEventListener("beforeunload", (event) => {
  if (pending && $("problem").textContent) event.preventDefault();
});

history.replaceState(null, "", "/"); // keeps the token out of the address bar, bookmarks and screenshots
exchange("/state");
