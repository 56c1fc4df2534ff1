// Optional enhancements: times in the viewer's time zone, copy buttons, and automatic refresh. The pages work without it.
// Plain JavaScript without a build step.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // --- times ---------------------------------------------------------------------------------------------------

  const two = (number) => String(number).padStart(2, "0");
  const viewer = new Intl.DateTimeFormat(undefined).resolvedOptions().timeZone || "";
  const abbreviation = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" });
  const UNITS = [[86400, "day", "days"], [3600, "h", "h"], [60, "min", "min"], [1, "s", "s"]];
  let skew = 0; // milliseconds by which the server's clock is ahead of the viewer's

  function zoneOf(moment) {
    const part = abbreviation.formatToParts(moment).find((each) => each.type === "timeZoneName");
    return part ? part.value : viewer;
  }

  function localize(scope) {
    for (const each of scope.querySelectorAll("time[datetime]")) {
      const moment = new Date(each.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      const day = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
      const clock = `${two(moment.getHours())}:${two(moment.getMinutes())}`;
      each.title = each.dateTime;
      if (each.dataset.form === "clock") { each.textContent = clock; continue; }
      if (each.dataset.form === "day") { each.textContent = day.slice(5); continue; }
      const seconds = each.dataset.form === "minutes" ? "" : `:${two(moment.getSeconds())}`;
      each.textContent = `${day} ${clock}${seconds} `;
      const zone = document.createElement("span");
      zone.textContent = zoneOf(moment);
      each.append(zone);
    }
    for (const each of scope.querySelectorAll("[data-zone]")) each.textContent = `${viewer} (this browser's zone)`;
  }

  function ago(milliseconds) {
    const seconds = milliseconds / 1000;
    for (const [size, one, many] of UNITS) {
      const number = Math.floor(Math.abs(seconds) / size);
      if (number) {
        const text = `${number} ${number === 1 ? one : many}`;
        return seconds > 0 ? `${text} ago` : `in ${text}`;
      }
    }
    return "just now";
  }

  function age(scope) {
    const now = Date.now() + skew;
    for (const each of scope.querySelectorAll("[data-since]")) {
      const at = new Date(each.dataset.since).getTime();
      if (!Number.isNaN(at)) each.textContent = ago(now - at);
    }
  }

  function readClock(page) {
    const at = new Date(page.querySelector("[data-now]")?.dataset.now || "").getTime();
    if (!Number.isNaN(at)) skew = at - Date.now();
  }

  // --- copying -------------------------------------------------------------------------------------------------

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // The clipboard API is not available on pages served by plain HTTP.
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "sr";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button.copy");
    if (!button) return;
    const from = button.dataset.from && document.getElementById(button.dataset.from);
    const before = button.textContent;
    button.textContent = (await copy(from ? from.textContent : button.dataset.copy)) ? "Copied" : "Press Ctrl+C";
    button.focus();
    setTimeout(() => { button.textContent = before; }, 1500);
  });

  // --- staying current -----------------------------------------------------------------------------------------

  const FAILURES_BEFORE_SLOWING = 3;
  let failures = 0;

  let pressed = false; // while a pointer button is pressed, the page must not change
  for (const name of ["pointerdown", "keydown"]) document.addEventListener(name, () => { pressed = true; });
  for (const name of ["pointerup", "pointercancel", "keyup", "blur"]) window.addEventListener(name, () => { pressed = false; });

  function busy(main) {
    const active = document.activeElement;
    const typing = active && main.contains(active) && active.matches("input, select, textarea");
    const selection = document.getSelection();
    const selecting = selection && !selection.isCollapsed && main.contains(selection.anchorNode);
    return document.hidden || pressed || typing || selecting;
  }

  function addressOf(element) {
    if (!element) return null;
    if (element.id) return `#${CSS.escape(element.id)}`;
    const href = element.getAttribute("href");
    return href ? `${element.tagName.toLowerCase()}[href="${CSS.escape(href)}"]` : null;
  }

  function swap(fresh) {
    const open = [...document.querySelectorAll("details[id]")].map((each) => [each.id, each.open]);
    const active = document.activeElement;
    const focused = active && active !== document.body ? addressOf(active) : null;
    for (const name of ["states", "main", "foot"]) {
      const here = document.getElementById(name);
      const there = fresh.getElementById(name);
      if (here && there && here.innerHTML !== there.innerHTML) here.replaceChildren(...there.childNodes);
    }
    document.title = fresh.title;
    for (const [id, wasOpen] of open) {
      const details = document.getElementById(id);
      if (details) details.open = wasOpen;
    }
    if (focused && document.activeElement === document.body) document.querySelector(focused)?.focus({ preventScroll: true });
    readClock(fresh);
    localize(document);
    age(document);
  }

  async function look(main) {
    if (busy(main)) return;
    try {
      // This maximum age lets the server share one answer between all viewers of a page.
      const headers = { accept: "text/html", "cache-control": "max-age=3" };
      const answer = await fetch(location.href, { headers, cache: "no-store" });
      const text = await answer.text();
      if (busy(main) || !text.includes("<main")) return;
      failures = 0;
      swap(new DOMParser().parseFromString(text, "text/html"));
    } catch {
      failures += 1;
      const live = document.getElementById("live");
      // A proxy that requires a new sign-in redirects to another site, which causes the same error here.
      if (live) live.textContent = "· not updated: the monitor does not respond, or your session has ended. Reload the page.";
    }
  }

  function stayCurrent(main) {
    const seconds = Number(document.body.dataset.refresh);
    if (!seconds) return;
    const next = () => setTimeout(async () => {
      await look(main);
      next();
    }, seconds * 1000 * (failures > FAILURES_BEFORE_SLOWING ? 6 : 1));
    next();
    document.addEventListener("visibilitychange", () => { if (!document.hidden) look(main); });
  }

  readClock(document);
  localize(document);
  age(document);
  setInterval(() => { if (!document.hidden) age(document); }, 5000);
  const main = document.getElementById("main");
  if (main) stayCurrent(main);
})();
