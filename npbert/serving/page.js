"use strict";
const key = document.getElementById("key"), forms = document.querySelectorAll("form[data-task]");

const headers = () => {
  const made = { "Content-Type": "application/json" };
  if (key.value) made.Authorization = `Bearer ${key.value}`;
  return made;
};

// What a control says, or undefined where the default holds.
const valueOf = (control) => {
  const text = control.value;
  if (text === "") return undefined;
  switch (control.dataset.kind) {
    case "flag": return text === "true";
    case "count": return Number(text);
    case "lines": return text.split("\n").filter((line) => line.trim() !== "");
    case "names": return text.split(",").map((name) => name.trim()).filter((name) => name);
    default: return text;
  }
};

const bodyOf = (form) => {
  const input = {}, parameters = {};
  for (const control of form.elements) {
    const [group, name] = control.name.split(".");
    const value = valueOf(control);
    if (value === undefined) continue;
    if (group === "field") input[name] = value;
    if (group === "option") parameters[name] = value;
  }
  const body = { inputs: input, parameters };
  if (form.elements.model.value) body.model = form.elements.model.value;
  return body;
};

const ask = async (form) => {
  const state = form.querySelector(".state"), answer = form.querySelector(".answer");
  state.textContent = "asks ...";
  answer.hidden = true;
  const began = performance.now();
  try {
    const reply = await fetch(form.dataset.path, {
      method: "POST", headers: headers(), body: JSON.stringify(bodyOf(form)),
    });
    const value = await reply.json();
    const notice = reply.headers.get("npbert-notice");
    const seconds = `${Math.round(performance.now() - began)} ms`;
    state.textContent = reply.ok ? [seconds, notice].filter(Boolean).join("; ") : value.error;
    if (reply.ok) {
      answer.textContent = JSON.stringify(value, null, 1);
      answer.hidden = false;
    }
  } catch (error) {
    state.textContent = `there was no answer: ${error.message}`;
  }
};

// Which models there are; with a key, as soon as it is there.
const listModels = async () => {
  const reply = await fetch("info", { headers: headers() });
  key.form.hidden = reply.status !== 401 && key.value === "";
  if (!reply.ok) return;
  const { tasks } = await reply.json();
  for (const form of forms) {
    const models = tasks[form.dataset.task], select = form.elements.model;
    select.replaceChildren(...models.map(({ model }) => new Option(model, model)));
    select.parentElement.hidden = models.length < 2;
  }
};

for (const form of forms) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(form);
  });
}
key.form.addEventListener("submit", (event) => {
  event.preventDefault();
  listModels();
});
key.addEventListener("change", listModels);
listModels().finally(() => document.documentElement.classList.add("ready"));
