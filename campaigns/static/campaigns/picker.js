// Choosing devices by how their name begins. The text area remains the truth: the picker writes into it.
(() => {
  "use strict";
  const SHOWN = 60;

  document.querySelectorAll("[data-picker]").forEach((picker) => {
    const area = picker.querySelector("textarea"), input = picker.querySelector("[role=combobox]");
    const list = picker.querySelector("[role=listbox]"), chips = picker.querySelector(".chips");
    const words = picker.dataset;
    let found = [], active = -1, asked = 0, timer = 0;

    picker.querySelector(".picker-search").hidden = false;
    picker.querySelector("[data-label]").htmlFor = input.id;
    area.setAttribute("aria-label", picker.querySelector(".paste summary").textContent);
    picker.querySelector(".paste").open = Boolean(picker.querySelector(".errorlist"));

    const names = () => [...new Set(area.value.split(/[\s,;，；、]+/).filter(Boolean))];
    const write = (all) => {
      area.value = all.join("\n");
      draw();
    };
    const draw = () => {
      const all = names();
      chips.hidden = !all.length;
      chips.replaceChildren(...all.slice(0, SHOWN).map((name) => {
        const item = document.createElement("li"), button = document.createElement("button");
        item.textContent = name;
        button.type = "button";
        button.textContent = "×";
        button.setAttribute("aria-label", `${words.remove} ${name}`);
        button.addEventListener("click", () => { write(names().filter((one) => one !== name)); input.focus(); });
        item.append(button);
        return item;
      }));
      if (all.length > SHOWN) {
        const more = document.createElement("li");
        more.textContent = `+ ${(all.length - SHOWN).toLocaleString()}`;
        chips.append(more);
      }
    };

    const close = () => {
      clearTimeout(timer);
      asked += 1;
      list.hidden = true;
      active = -1;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
    };
    const mark = (index) => {
      active = index;
      [...list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
      if (index >= 0) {
        input.setAttribute("aria-activedescendant", `picker-option-${index}`);
        list.children[index].scrollIntoView({ block: "nearest" });
      }
    };
    const pick = (index) => {
      if (found[index]) write([...names(), found[index].name]);
      input.value = "";
      close();
      input.focus();
    };
    const show = () => {
      list.replaceChildren(...found.map((device, index) => {
        const option = document.createElement("li"), state = document.createElement("span"), version = document.createElement("span");
        option.id = `picker-option-${index}`;
        option.setAttribute("role", "option");
        option.setAttribute("aria-selected", "false");
        option.textContent = device.name;
        version.textContent = device.version;
        version.className = "quiet";
        state.textContent = device.online ? words.online : words.offline;
        state.className = device.online ? "pill ok" : "pill";
        option.append(version, state);
        option.addEventListener("mousedown", (event) => { event.preventDefault(); pick(index); });
        return option;
      }));
      if (!found.length) {
        const none = document.createElement("li");
        none.className = "none";
        none.setAttribute("role", "option");
        none.setAttribute("aria-disabled", "true");
        none.setAttribute("aria-selected", "false");
        none.textContent = words.none;
        list.append(none);
      }
      list.hidden = false;
      active = -1;
      input.setAttribute("aria-expanded", "true");
    };
    const ask = async () => {
      const number = ++asked;
      const query = new URLSearchParams({ q: input.value.trim() });
      document.querySelectorAll("input[name=source_versions]:checked").forEach((box) => query.append("version", box.value));
      try {
        const answer = await fetch(`${words.url}?${query}`, { headers: { Accept: "application/json" } });
        if (!answer.ok || number !== asked) return;
        const chosen = new Set(names());
        found = (await answer.json()).devices.filter((device) => !chosen.has(device.name));
        if (document.activeElement === input) show();
      } catch { /* Offline: names can still be typed. */ }
    };

    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 150); });
    input.addEventListener("focus", ask);
    input.addEventListener("blur", close);
    input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        if (list.hidden) ask();
        else if (found.length) mark((active + (event.key === "ArrowDown" ? 1 : found.length) + (active < 0 && event.key === "ArrowUp" ? 1 : 0)) % found.length);
      } else if (event.key === "Enter") {
        event.preventDefault();
        if (active >= 0) pick(active);
        else if (input.value.trim()) { write([...names(), ...input.value.split(/[\s,;，；、]+/).filter(Boolean)]); input.value = ""; close(); }
      } else if (event.key === "Escape") {
        close();
      }
    });
    input.addEventListener("paste", (event) => {
      const text = event.clipboardData.getData("text");
      if (!/[\s,;，；、]/.test(text.trim())) return;
      event.preventDefault();
      write([...names(), ...text.split(/[\s,;，；、]+/).filter(Boolean)]);
    });
    // What was typed and not yet taken counts too.
    area.form.addEventListener("submit", () => {
      if (input.value.trim()) write([...names(), input.value.trim()]);
    });
    area.addEventListener("change", draw);
    draw();
  });
})();
