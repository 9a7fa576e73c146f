// New Firmware: a progress bar while the file travels, and errors beside their fields with the file still chosen.
// Without this script the form works as a plain one.
(() => {
  "use strict";
  const form = document.getElementById("new-firmware");
  if (!form) return;
  const button = form.querySelector("button.main");
  const panel = form.querySelector(".upload-progress");
  const bar = panel.querySelector("progress");
  const word = panel.querySelector("[role=status]");
  const file = form.elements.upload;

  const place = (name) => form.elements[name]?.closest(".field") || form.querySelector("[data-errors]");
  const clear = () => {
    form.querySelectorAll(".errorlist").forEach((list) => list.remove());
    form.querySelectorAll(".wrong").forEach((field) => field.classList.remove("wrong"));
    form.querySelectorAll("[aria-invalid]").forEach((control) => control.removeAttribute("aria-invalid"));
  };
  const show = (errors) => {
    clear();
    for (const [name, sentences] of Object.entries(errors)) {
      const list = document.createElement("ul");
      list.className = "errorlist";
      list.setAttribute("role", "alert");
      sentences.forEach((sentence) => { list.appendChild(document.createElement("li")).textContent = sentence; });
      const field = place(name);
      field.classList.add("wrong");
      const control = form.elements[name];
      control?.setAttribute("aria-invalid", "true");
      control ? control.after(list) : field.append(list);
    }
    const first = form.querySelector(".wrong :is(input:not([type=hidden]), select)");
    first?.focus();
  };
  const rest = () => { panel.hidden = true; button.disabled = false; };
  const tooLarge = () => file.files[0] && file.files[0].size > Number(file.dataset.maxBytes);

  file.addEventListener("change", () => {
    clear();
    if (tooLarge()) show({ upload: [form.dataset.tooLarge] });
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (tooLarge()) return show({ upload: [form.dataset.tooLarge] });
    clear();
    const request = new XMLHttpRequest();
    request.open("POST", form.action || location.href);
    request.setRequestHeader("X-Requested-With", "XMLHttpRequest");
    request.upload.addEventListener("progress", (step) => {
      if (!step.lengthComputable) return;
      bar.value = Math.floor((100 * step.loaded) / step.total);
      word.textContent = step.loaded < step.total ? `${form.dataset.uploading} ${bar.value} %` : form.dataset.checking;
    });
    request.addEventListener("load", () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* a page of the proxy, or the login */ }
      if (answer.url) { location.assign(answer.url); return; }
      rest();
      show(answer.errors || { __all__: [request.status === 413 ? form.dataset.tooLarge : form.dataset.failed] });
    });
    request.addEventListener("error", () => { rest(); show({ __all__: [form.dataset.failed] }); });
    bar.value = 0;
    word.textContent = form.dataset.uploading;
    panel.hidden = false;
    button.disabled = true;
    request.send(new FormData(form));
  });
})();
