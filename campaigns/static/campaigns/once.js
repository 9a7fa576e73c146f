// A form that launches something is sent once; the server would launch it only once anyway.
document.querySelectorAll("form[data-once]").forEach((form) => {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    form.setAttribute("aria-busy", "true");
  });
});
// Coming back by the browser's history shows the form as it was, ready to be sent.
addEventListener("pageshow", () => document.querySelectorAll("form[data-once]").forEach((form) => {
  delete form.dataset.sent;
  form.removeAttribute("aria-busy");
}));
