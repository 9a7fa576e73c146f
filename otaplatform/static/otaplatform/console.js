// Small behaviours of every page. The site's policy allows no inline script or style, so pages ask by attribute.
(() => {
  "use strict";

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.includes(`time_zone=${zone}`)) {
    document.cookie = `time_zone=${zone}; path=/; max-age=31536000; samesite=lax`;
  }

  // Stacked bars: the share of each part, in percent.
  const shares = (root) => root.querySelectorAll("i[data-share]").forEach((part) => {
    part.style.width = `${part.dataset.share}%`;
  });
  shares(document);

  // A field that matters only while another one has a certain value: <div data-shows-when="name=value,value">.
  const dependents = document.querySelectorAll("[data-shows-when]");
  const settle = () => dependents.forEach((part) => {
    const [name, values] = part.dataset.showsWhen.split("=");
    const controls = [...document.getElementsByName(name)];
    const control = controls.find((one) => one.type !== "radio" && one.type !== "checkbox" || one.checked);
    part.hidden = !control || !values.split(",").includes(control.value);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-submit]")) event.target.form.requestSubmit();
    if (dependents.length) settle();
  });
  settle();

  document.addEventListener("submit", (event) => {
    const asked = event.submitter?.dataset.confirm || event.target.dataset.confirm;
    if (asked && !window.confirm(asked)) event.preventDefault();
  });

  document.addEventListener("click", async (event) => {
    const file = event.target.closest("[data-download]");
    if (file) {
      // The byte order mark tells spreadsheets that this is UTF-8.
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", document.querySelector(file.dataset.download).value], { type: "text/csv" }));
      link.download = file.dataset.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }
    const copier = event.target.closest("[data-copy]");
    if (copier) {
      const source = document.querySelector(copier.dataset.copy);
      await copy(source.value ?? source.textContent);
      const words = copier.textContent;
      copier.textContent = copier.dataset.copied || "✓";
      setTimeout(() => { copier.textContent = words; }, 1500);
    }
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll("details.menu[open]").forEach((menu) => { menu.open = false; });
  });

  // The figures of the fleet, wherever a page shows them; a page that nobody looks at asks nothing.
  const FLEET_EVERY = 5000;
  const askFleet = async () => {
    let status = 0;
    try {
      const answer = document.hidden ? null : await fetch("/fleet.json");
      status = answer?.redirected ? 403 : answer?.status;
      const figures = status === 200 ? await answer.json() : {};
      document.querySelectorAll("[data-fleet]").forEach((place) => {
        const text = figures[place.dataset.fleet];
        if (text && place.textContent !== text) place.textContent = text;
      });
    } catch { /* The next time may do better. */ }
    // Somebody who logged out, or may no longer look, is not asked about again.
    if (status !== 403) setTimeout(askFleet, FLEET_EVERY);
  };
  if (document.querySelector("[data-fleet]")) setTimeout(askFleet, FLEET_EVERY);

  // Browsers offer the clipboard to secure pages only; on plain http the old command still works.
  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    return area.remove();
  };

  window.ota = { shares };
})();
