// Keeps what is marked data-live fresh: the same page, fetched again, its marked part put in place. Nothing else needs
// a script, but for ticking all boxes of a list at once, for parts of a page that take a moment (data-load), and for
// forms that say what is wrong, and what would come of it, while one types (data-check, data-forecast).
const REFRESH_MS = 2000;
async function refresh() {
  const part = document.querySelector("[data-live]");
  if (!part) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.ok && !answer.redirected) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-live]");
      if (fresh) part.replaceWith(fresh);
    }
  } catch { /* the server is away: what is shown stays, the next turn tries again */ }
  setTimeout(refresh, REFRESH_MS);
}
if (document.querySelector("[data-live]")) setTimeout(refresh, REFRESH_MS);

for (const all of document.querySelectorAll("[data-all]")) {
  all.addEventListener("change", () => {
    for (const box of document.querySelectorAll(`input[name="${all.dataset.all}"]`)) box.checked = all.checked;
  });
}

for (const part of document.querySelectorAll("[data-load]")) {
  fetch(part.dataset.load).then(async (answer) => {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    part.replaceChildren(...page.body.childNodes);
  }).catch(() => { /* its link is still there */ }).finally(() => part.setAttribute("aria-busy", "false"));
}

for (const picker of document.querySelectorAll("[data-upload]")) {
  picker.addEventListener("change", async () => {
    const form = picker.form, said = document.getElementById("e-" + picker.id), file = picker.files[0];
    if (!file) return;
    const bytes = new Uint8Array(await file.slice(0, 1 << 20).arrayBuffer());
    let text = "";
    for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
    const headers = { "content-type": "application/json", "x-csrf-token": form.elements.csrf.value };
    const answer = await fetch(picker.dataset.upload, { method: "POST", headers, body: JSON.stringify({ data: btoa(text) }) });
    const kept = await answer.json();
    said.textContent = answer.ok ? "" : kept.error.message;
    if (answer.ok) { form.elements[picker.dataset.url].value = kept.url; form.elements[picker.dataset.size].value = kept.size; }
  });
}

const CHECK_MS = 500;
const posted = (form) => ({ method: "POST", body: new URLSearchParams(new FormData(form)) });
for (const form of document.querySelectorAll("[data-check]")) {
  const touched = new Set([...form.querySelectorAll('[aria-invalid="true"]')].map((field) => field.name));
  let timer = 0, turn = 0;
  for (const said of form.querySelectorAll('.error[id^="e-"]')) said.setAttribute("aria-live", "polite");
  async function check() {
    const mine = ++turn;
    const answer = await fetch(form.dataset.check, posted(form)).catch(() => null);
    if (!answer?.ok || mine !== turn) return;  // away, or something newer was typed
    const { wrong, problem } = await answer.json();
    for (const said of form.querySelectorAll('.error[id^="e-"]')) {
      const name = said.id.slice(2);
      if (name === "form") continue;
      const text = touched.has(name) ? wrong[name] ?? "" : "";
      if (said.textContent !== text) said.textContent = text;
      const field = document.getElementById("f-" + name);
      if (text) field?.setAttribute("aria-invalid", "true"); else field?.removeAttribute("aria-invalid");
    }
    const whole = document.getElementById("e-form"), text = Object.keys(wrong).length ? "" : problem;
    if (whole && whole.textContent !== text) whole.textContent = text;
  }
  for (const event of ["input", "change"]) form.addEventListener(event, (change) => {
    touched.add(change.target.name);
    clearTimeout(timer);
    timer = setTimeout(check, CHECK_MS);
  });
}

for (const button of document.querySelectorAll("[data-forecast]")) {
  button.addEventListener("click", async (click) => {
    const part = document.getElementById(button.dataset.forecast);
    click.preventDefault();
    button.disabled = true;
    part.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(button.getAttribute("formaction"), { ...posted(button.form), headers: { "x-part": "forecast" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      part.replaceChildren(...(page.querySelector("main") ?? page.body).childNodes);
      part.scrollIntoView({ block: "nearest" });
    } finally { button.disabled = false; part.setAttribute("aria-busy", "false"); }
  });
}
