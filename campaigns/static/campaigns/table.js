// Selecting rows: the box in the head, and buttons that need a selection.
(() => {
  "use strict";
  const boxes = () => [...document.querySelectorAll("input[name=task][form=act]")];
  const settle = () => {
    const all = boxes(), chosen = all.filter((box) => box.checked).length;
    const head = document.querySelector("[data-select-all]");
    if (head) {
      head.checked = all.length > 0 && chosen === all.length;
      head.indeterminate = chosen > 0 && chosen < all.length;
    }
    document.querySelectorAll("[data-needs-selection]").forEach((button) => { button.disabled = !chosen; });
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-select-all]")) boxes().forEach((box) => { box.checked = event.target.checked; });
    settle();
  });
  document.addEventListener("rows", settle);
  settle();
})();
