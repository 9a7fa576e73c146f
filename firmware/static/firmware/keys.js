// Secure Update: Copy fetches the public key and puts it on the clipboard. Where the browser allows no clipboard
// (a page over plain http), the form goes on as usual, to a page that shows the key.
(() => {
  "use strict";
  if (!navigator.clipboard) return;
  document.querySelectorAll("form.keys").forEach((form) => form.addEventListener("submit", async (event) => {
    const button = event.submitter;
    if (!button || form.dataset.plain) return;
    event.preventDefault();
    const body = new FormData(form);
    body.set(button.name, button.value);
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { "X-Requested-With": "XMLHttpRequest" } });
      if (!answer.ok || answer.redirected) throw new Error(answer.statusText);
      await navigator.clipboard.writeText(await answer.text());
    } catch {
      form.dataset.plain = "1";
      button.click();
      return;
    }
    const word = button.textContent;
    button.textContent = form.dataset.copied;
    setTimeout(() => { button.textContent = word; }, 1500);
  }));
})();
