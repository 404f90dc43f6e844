// Keeps what is marked data-live fresh: the same page, fetched again, its marked part put in place. Nothing else needs
// a script, but for ticking all boxes of a list at once, and for
// parts of a page that take a moment (data-load).
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
