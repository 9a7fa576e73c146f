// Keeps counts, bars and rows of a page up to date over a socket. The socket brings codes and numbers; the
// words stand in the page (its #live script). What moves to another tab is fetched from the page's own address.
(() => {
  "use strict";

  const source = document.getElementById("live");
  if (!source) return;
  let config = JSON.parse(source.textContent);
  const counts = new Map(Object.entries(config.campaigns));
  const locale = document.documentElement.lang || "en";
  const clock = new Intl.DateTimeFormat("en-GB", {
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone: config.zone,
  });
  const APPLY_EVERY = 1000, FETCH_EVERY = 2000, SLOWEST = 30000;

  // ---- counts and bars: every element with data-campaigns shows the sum over those campaigns ----
  const sum = (ids) => {
    const total = {};
    for (const id of ids) {
      for (const [tab, n] of Object.entries(counts.get(id) || {})) total[tab] = (total[tab] || 0) + n;
    }
    return total;
  };
  const draw = () => document.querySelectorAll("[data-campaigns]").forEach((part) => {
    const total = sum(part.dataset.campaigns.trim().split(/\s+/));
    const all = Object.values(total).reduce((a, b) => a + b, 0);
    part.querySelectorAll("[data-count]").forEach((place) => {
      const text = (total[place.dataset.count] || 0).toLocaleString(locale);
      if (place.textContent !== text) place.textContent = text;
    });
    part.querySelectorAll("[data-open]").forEach((place) => {
      place.textContent = ((total.pending || 0) + (total.updating || 0)).toLocaleString(locale);
    });
    part.querySelectorAll("i[data-tab]").forEach((bar) => {
      bar.dataset.share = all ? (100 * (total[bar.dataset.tab] || 0) / all).toFixed(2) : "0";
    });
    window.ota.shares(part);
  });

  // ---- rows: true if the server has to write the row anew ----
  const showTask = (task) => {
    const row = document.querySelector(`[data-task="${task.id}"]`);
    if (!row) return false;
    // The page of one device tells its whole history.
    if (row.dataset.status !== task.status || "whole" in row.dataset && row.dataset.whole !== task.changed_at) return true;
    const bar = row.querySelector("progress");
    if (bar) {
      bar.value = task.progress;
      row.querySelector("[data-percent]").textContent = `${task.progress}%`;
      if (task.status === "IN_PROGRESS") {
        row.querySelector("[data-why]").textContent = task.progress >= 100 ? config.words.restart : config.words.downloading;
      }
      row.querySelector("[data-when]").textContent = clock.format(new Date(task.changed_at));
    }
    return false;
  };

  // ---- the parts that only the server can write ----
  let fetchedAt = 0, fetchTimer = 0, fetching = false;
  const refetch = () => {
    if (fetchTimer || fetching) { refetch.again = fetching; return; }
    fetchTimer = setTimeout(fetchParts, Math.max(0, fetchedAt + FETCH_EVERY - Date.now()));
  };
  const fetchParts = async () => {
    fetchTimer = 0;
    fetching = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.ok && !answer.redirected) replaceParts(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* The next news, or the next connection, tries again. */ }
    fetchedAt = Date.now();
    fetching = false;
    if (refetch.again) { refetch.again = false; refetch(); }
  };
  const replaceParts = (fresh) => {
    const news = fresh.getElementById("live");
    if (!news) return;
    config = JSON.parse(news.textContent);
    counts.clear();
    Object.entries(config.campaigns).forEach(([id, tabs]) => counts.set(id, tabs));
    const added = [...fresh.querySelectorAll("[data-part]")].some((part) => !document.getElementById(part.id));
    if (added) { location.reload(); return; }
    const chosen = new Set([...document.querySelectorAll("[data-part] input:checked[name=task]")].map((box) => box.value));
    const focused = document.activeElement?.closest("[data-part]") ? document.activeElement : null;
    document.querySelectorAll("[data-part]").forEach((part) => {
      const other = fresh.getElementById(part.id);
      if (!other || other.innerHTML === part.innerHTML) return;
      // The tools change with their tab and the batches to choose from; what is being typed there stays.
      if (part.dataset.tools && (part.dataset.tools === other.dataset.tools || part.contains(document.activeElement))) return;
      part.replaceChildren(...other.childNodes);
      Object.assign(part.dataset, other.dataset);
    });
    document.querySelectorAll("input[name=task]").forEach((box) => { box.checked = chosen.has(box.value); });
    document.dispatchEvent(new CustomEvent("rows"));
    if (focused && !focused.isConnected) {
      const same = focused.getAttribute("href") || focused.value;
      [...document.querySelectorAll("[data-part] a, [data-part] input, [data-part] button")]
        .find((one) => (one.getAttribute("href") || one.value) === same)?.focus({ preventScroll: true });
    }
    draw();
    window.ota.shares(document);
    say(state);
  };

  // ---- news: applied at most once a second ----
  const waiting = new Map();
  // Batches with news that the page, fetched anew, still does not show, and the state that they were in.
  const elsewhere = new Map();
  let timer = 0;
  const take = (message) => {
    const before = waiting.get(message.campaign);
    const tasks = new Map((before?.tasks || []).map((task) => [task.id, task]));
    message.tasks.forEach((task) => tasks.set(task.id, task));
    waiting.set(message.campaign, { ...message, tasks: [...tasks.values()] });
    if (!timer) timer = setTimeout(apply, Math.max(0, apply.last + APPLY_EVERY - Date.now()));
  };
  const apply = () => {
    timer = 0;
    apply.last = Date.now();
    let stale = false;
    for (const message of waiting.values()) {
      const id = String(message.campaign);
      // A batch that the page does not know yet, rows that came to the open tab or left it, another state.
      if (!counts.has(id)) {
        stale ||= elsewhere.get(id) !== message.status;
        elsewhere.set(id, message.status);
        continue;
      }
      stale ||= config.watched.some((tab) => counts.get(id)[tab] !== message.tabs[tab]);
      counts.set(id, message.tabs);
      message.tasks.forEach((task) => { stale = showTask(task) || stale; });
      document.querySelectorAll("[data-status][data-campaigns]").forEach((part) => {
        stale ||= part.dataset.campaigns.trim() === id && part.dataset.status !== message.status;
      });
    }
    waiting.clear();
    draw();
    if (stale) refetch();
  };
  apply.last = 0;

  // ---- the socket ----
  let state = "", pause = 1000;
  const say = (now) => {
    state = now;
    document.querySelectorAll("[data-live-state]").forEach((place) => {
      place.textContent = now ? config.words[now] : "";
      place.dataset.state = now;
    });
  };
  const connect = () => {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${config.socket}`);
    let opened = false;
    socket.addEventListener("open", () => {
      if (state === "lost") refetch();
      opened = true;
      pause = 1000;
      say("connected");
      const tasks = [...document.querySelectorAll("[data-task]")].map((row) => Number(row.dataset.task));
      if (tasks.length) socket.send(JSON.stringify({ tasks }));
    });
    socket.addEventListener("message", (event) => JSON.parse(event.data).campaigns.forEach(take));
    socket.addEventListener("close", (event) => {
      if (opened || state) say("lost");
      if (event.code === 4403) return;
      setTimeout(connect, pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, SLOWEST);
    });
  };
  addEventListener("pagehide", () => { state = ""; });
  connect();
})();
