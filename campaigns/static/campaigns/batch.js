// A dynamic update cannot be scheduled: the choice is closed while it is chosen. The server refuses it too.
(() => {
  "use strict";
  const scheduled = document.querySelector("input[name=when][value=scheduled]");
  const now = document.querySelector("input[name=when][value=now]");
  const settle = () => {
    const dynamic = document.querySelector("input[name=policy]:checked")?.value === "dynamic";
    if (dynamic && scheduled.checked) {
      now.checked = true;
      now.dispatchEvent(new Event("change", { bubbles: true }));
    }
    scheduled.disabled = dynamic;
  };
  document.querySelectorAll("input[name=policy]").forEach((choice) => choice.addEventListener("change", settle));
  settle();
})();
