"use strict";
(() => {
  const POLL_MS = 1000, ANSWER_MS = 2500, STALE_MS = 3500, KEEP_EVENTS = 200, SPARK_POINTS = 60;
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  // el builds an element. Data from the cluster only ever becomes text.
  function el(name, attrs, ...children) {
    const node = name === "svg" || name === "rect" ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [k, v] of Object.entries(attrs || {})) if (v !== undefined && v !== null) node.setAttribute(k, v);
    node.append(...children);
    return node;
  }
  function say(node, text) { if (node.textContent !== text) node.textContent = text; }
  function mark(node, name, value) { value === null ? node.removeAttribute(name) : node.setAttribute(name, value); }

  // link makes an address to click of what a node says of itself: of a host and
  // port, or of a URL of the web and of nothing else.
  function link(address) {
    if (!address) return null;
    try {
      const u = new URL(/^https?:\/\//.test(address) ? address : "http://" + address);
      return u.protocol === "http:" || u.protocol === "https:" ? u.origin + "/" : null;
    } catch (e) { return null; }
  }

  const number = (n) => Number(n).toLocaleString("en-US");
  function duration(ms) {
    if (ms < 1) return "<1 ms";
    if (ms < 1000) return Math.round(ms) + " ms";
    if (ms < 60e3) return (ms / 1000).toFixed(ms < 10e3 ? 1 : 0) + " s";
    if (ms < 3600e3) return Math.floor(ms / 60e3) + " min";
    if (ms < 86400e3) return Math.floor(ms / 3600e3) + " h " + Math.floor(ms % 3600e3 / 60e3) + " min";
    return Math.floor(ms / 86400e3) + " d";
  }
  function clock(at, millis) {
    const t = new Date(at);
    if (isNaN(t)) return "";
    const two = (n) => String(n).padStart(2, "0");
    return two(t.getHours()) + ":" + two(t.getMinutes()) + ":" + two(t.getSeconds()) + (millis ? "." + String(t.getMilliseconds()).padStart(3, "0") : "");
  }

  const view = { inside: false, admin: false, status: null, nodes: [], lastAnswer: 0, stream: false, rates: [], sample: null, busy: false };

  // ---- asking the node -----------------------------------------------------
  async function ask(path, options) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), (options && options.wait) || ANSWER_MS);
    try {
      const answer = await fetch(path, { cache: "no-store", signal: stop.signal, ...options });
      const body = await answer.json();
      if (answer.status === 401 && path !== "/v1/session") enter();
      if (!answer.ok) throw new Error(body.error || "HTTP " + answer.status);
      return body;
    } finally { clearTimeout(timer); }
  }

  // ---- who is asking -------------------------------------------------------
  // The token goes to the node once and comes back as a cookie that no script
  // can read; this page keeps neither.
  let entering = false;
  async function enter() {
    if (entering) return;
    entering = true;
    try {
      const session = await ask("/v1/session");
      const stranger = session.scope === "none";
      view.admin = session.scope === "admin";
      view.inside = !stranger;
      $("login").hidden = !stranger;
      $("main").hidden = stranger;
      $("live").hidden = stranger;
      $("leave").hidden = stranger || !session.required;
      if (stranger) {
        if (source) { source.close(); source = null; }
        view.stream = false;
        view.lastAnswer = 0;
        renderLive();
        $("token").focus();
      } else {
        if (!source) listen();
        refresh();
      }
    } catch (e) { setTimeout(enter, 2000); } finally { entering = false; }
  }

  $("login").addEventListener("submit", async (event) => {
    event.preventDefault();
    const token = $("token").value.trim();
    $("token").value = "";
    $("wrong").hidden = true;
    try {
      await ask("/v1/session", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });
      enter();
    } catch (e) {
      say($("wrong"), e.name === "AbortError" ? "no answer in time" : e.message);
      $("wrong").hidden = false;
      $("token").focus();
    }
  });
  $("leave").addEventListener("click", async () => {
    try { await ask("/v1/session", { method: "DELETE" }); } catch (e) { toast("Not logged out: " + e.message, 10000); }
    enter();
  });

  let asking = false, again = false;
  async function refresh() {
    if (!view.inside) return;
    if (asking) { again = true; return; }
    asking = true;
    try {
      const [status, nodes] = await Promise.all([ask("/v1/status"), ask("/v1/nodes")]);
      view.status = status;
      view.nodes = nodes.nodes || [];
      view.lastAnswer = Date.now();
      sampleRate();
      render();
    } catch (e) { /* renderLive says since when */ } finally {
      asking = false;
      renderLive();
      if (again) { again = false; setTimeout(refresh, 50); }
    }
  }

  let source = null;
  function listen() {
    source = new EventSource("/v1/events");
    source.onopen = () => { view.stream = true; renderLive(); };
    source.onmessage = (m) => {
      let record;
      try { record = JSON.parse(m.data); } catch (e) { return; }
      addEvent(m.lastEventId, record);
      refresh();
    };
    source.onerror = () => {
      view.stream = false;
      renderLive();
      if (source.readyState === EventSource.CLOSED) { // refused, not just cut: the browser does not retry by itself
        source.close();
        source = null;
        setTimeout(enter, 2000);
      }
    };
  }

  // ---- the picture -----------------------------------------------------------
  function renderLive() {
    const age = Date.now() - view.lastAnswer, fresh = view.lastAnswer > 0 && age < STALE_MS;
    mark($("live"), "data-on", fresh ? (view.stream ? "yes" : "part") : "no");
    say($("live-text"), fresh ? (view.stream ? "live" : "polling") : view.lastAnswer ? "reconnecting" : "connecting");
    const box = $("stale");
    box.hidden = fresh || !view.lastAnswer;
    if (box.hidden) return;
    mark($("hero"), "data-tone", "wait"); // it may be so no longer
    box.replaceChildren("No answer from this node since " + clock(view.lastAnswer) + " (" + duration(age) + "). This page shows what was true then.");
    for (const n of view.nodes) {
      if (view.status && n.node_id === view.status.node_id) continue;
      const there = link(n.api_address);
      if (there) box.append(el("a", { href: there }, "ask node " + n.node_id));
    }
  }

  function render() {
    const s = view.status, q = s.quorum || {}, primary = Number(s.primary) || 0;
    const p = view.nodes.find((n) => n.node_id === primary);
    const short = q.voters > 0 && q.reachable < q.needed;
    let tone = "wait", head, sub = [];
    if (s.halted) { tone = "bad"; head = "This node has stopped applying the log"; sub.push(s.halted); }
    else if (short) { tone = "bad"; head = "No quorum"; sub.push(q.reachable + " of " + q.voters + " voters reachable, " + q.needed + " are needed: writes are refused, reads are stale"); }
    else if (primary && (!p || p.alive !== false)) { tone = "good"; head = "Node " + primary + " is primary"; }
    else if (primary) { head = "Node " + primary + " is gone, choosing its successor…"; }
    else { head = "No primary"; sub.push("an election is on"); }
    const rules = s.rules || {}, pause = rules.pause;
    if (pause) { if (tone === "good") tone = "wait"; sub.push("failover is paused" + (pause.reason ? ": " + pause.reason : "")); }
    for (const m of rules.maintenance || []) sub.push("node " + m.node_id + " is in maintenance");
    if (s.blocked) { if (tone === "good") tone = "wait"; sub.push(s.blocked); }
    if (tone === "good" && s.primary_address) sub.push("database at " + s.primary_address);
    if (tone === "good" && Number.isFinite(s.last_contact_ms) && s.last_contact_ms >= 0 && s.leader !== s.node_id) sub.push("leader heard " + duration(s.last_contact_ms) + " ago");
    mark($("hero"), "data-tone", tone);
    say($("headline"), head);
    say($("subline"), sub.join(" · ") || "\u00a0");
    document.title = head + " · aiondb-ha";
    say($("seen-by"), "as seen by node " + s.node_id + (s.version ? ", " + s.version : "") + (s.uptime_ms ? ", up " + duration(s.uptime_ms) : ""));
    say($("epoch"), number(s.epoch || 0));
    say($("quorum"), q.voters ? q.reachable + " of " + q.voters + ", needs " + q.needed : "");
    renderPips(q, short);
    renderCards(primary);
  }

  function renderPips(q, short) {
    const pips = $("pips"), n = Math.min(q.voters || 0, 15);
    while (pips.children.length > n) pips.lastChild.remove();
    while (pips.children.length < n) pips.append(el("i"));
    [...pips.children].forEach((pip, i) => {
      mark(pip, "data-up", i < q.reachable ? "" : null);
      mark(pip, "data-mark", i + 1 === q.needed && i + 1 < n ? "" : null);
    });
    mark(pips, "data-short", short ? "" : null);
    pips.title = "a majority is " + (q.needed || "?");
  }

  function sampleRate() {
    const top = Math.max(0, ...view.nodes.map((n) => Number(n.lsn) || 0)), now = performance.now();
    if (view.sample && now - view.sample.at > 300) {
      view.rates.push(Math.max(0, (top - view.sample.top) * 1000 / (now - view.sample.at)));
      if (view.rates.length > SPARK_POINTS) view.rates.shift();
    }
    if (!view.sample || now - view.sample.at > 300) view.sample = { top, at: now };
    if (!view.rates.length) return;
    say($("rate"), number(Math.round(view.rates[view.rates.length - 1])));
    const peak = Math.max(1, ...view.rates), step = 120 / (SPARK_POINTS - 1), start = 120 - (view.rates.length - 1) * step;
    const line = view.rates.map((r, i) => (start + i * step).toFixed(1) + " " + (26 - 24 * r / peak).toFixed(1)).join("L");
    $("spark-line").setAttribute("d", "M" + line);
    $("spark-area").setAttribute("d", "M" + start.toFixed(1) + " 28L" + line + "L120 28Z");
  }

  const cards = new Map();
  function newCard(id) {
    const c = { name: el("h3", {}, "Node " + id), role: el("span", { class: "badge" }), leader: el("span", { class: "badge", "data-kind": "leader", title: "Raft leader" }, "leader"),
      here: el("span", { class: "here" }, "this node"), lsn: el("b"), lag: el("span"), fill: el("rect", { height: "1", width: "0" }),
      epoch: el("dd"), rtt: el("dd"), seen: el("dd"), where: el("a"), button: el("button", { type: "button", title: "hand the primacy to this node" }, "Make primary") };
    c.button.addEventListener("click", () => switchover(id));
    const fact = (label, dd) => el("div", {}, el("dt", {}, label), dd);
    c.box = el("article", { class: "card" },
      el("header", {}, c.name, c.role, c.leader, c.here),
      el("div", { class: "lsn" }, el("div", {}, c.lsn, c.lag), el("div", { class: "track" }, el("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none" }, c.fill))),
      el("dl", {}, fact("epoch", c.epoch), fact("round trip", c.rtt), fact("seen", c.seen)),
      el("footer", {}, c.where, c.button));
    return c;
  }

  function renderCards(primary) {
    const top = Math.max(1, ...view.nodes.map((n) => Number(n.lsn) || 0));
    const here = view.status.node_id;
    for (const [id, c] of cards) if (!view.nodes.some((n) => n.node_id === id)) { c.box.remove(); cards.delete(id); }
    view.nodes.forEach((n, i) => {
      let c = cards.get(n.node_id);
      if (!c) { c = newCard(n.node_id); cards.set(n.node_id, c); }
      if ($("cards").children[i] !== c.box) $("cards").insertBefore(c.box, $("cards").children[i] || null);
      const own = n.node_id === here, alive = own || n.alive !== false, role = alive ? n.role || "unknown" : "down";
      mark(c.box, "data-role", role);
      mark(c.box, "data-alive", alive ? "yes" : "no");
      say(c.role, n.witness ? "witness" : role);
      mark(c.role, "data-kind", role);
      c.leader.hidden = !n.leader || !alive;
      c.here.hidden = !own;
      say(c.lsn, "LSN " + number(n.lsn || 0));
      say(c.lag, n.primary ? "" : n.lag === null || n.lag === undefined ? "lag unknown" : Number(n.lag) === 0 ? "in step" : number(n.lag) + " behind");
      c.fill.setAttribute("width", String(Math.min(1, (Number(n.lsn) || 0) / top)));
      say(c.epoch, number(n.epoch || 0));
      say(c.rtt, own ? "–" : n.rtt_us > 0 ? (n.rtt_us < 1000 ? n.rtt_us + " µs" : (n.rtt_us / 1000).toFixed(1) + " ms") : "–");
      say(c.seen, own ? "here" : n.last_seen_ms >= 0 ? (n.last_seen_ms < 1000 ? "now" : duration(n.last_seen_ms) + " ago") : "never");
      say(c.where, n.api_address || n.address || "");
      mark(c.where, "href", own ? null : link(n.api_address));
      c.where.title = "database " + (n.database_address || "?") + ", HA " + (n.address || "?");
      c.button.hidden = !view.admin || n.primary || n.node_id === primary || n.voter === false;
      c.button.disabled = view.busy || !alive || !primary;
    });
  }

  async function switchover(id) {
    if (!confirm("Hand the primacy to node " + id + "?\n\nWrites pause for a moment; none is lost.")) return;
    view.busy = true;
    toast("Handing over to node " + id + "…", 30000);
    try {
      await ask("/v1/switchover?timeout=20s", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ to: id }), wait: 25000 });
      toast("Node " + id + " has taken over.");
    } catch (e) { toast("Not handed over: " + (e.name === "AbortError" ? "no answer in time" : e.message), 10000); }
    view.busy = false;
    refresh();
  }

  let toastTimer = 0;
  function toast(text, ms) {
    say($("toast"), text);
    $("toast").hidden = false;
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => { $("toast").hidden = true; }, ms || 4000);
  }

  // ---- events ----------------------------------------------------------------
  const KINDS = { PromotionComplete: "good", ElectionWon: "good", PrimaryLost: "bad", NoEligiblePrimary: "bad", PromotionFailed: "bad", SwitchoverFailed: "bad", StaleEpochDetected: "warn", ElectionLost: "warn", ElectionFailed: "warn", LeadershipLost: "warn" };
  const FIRST = new Set(["PrimaryLost", "SwitchoverStarted"]); // a new story begins
  const KNOWN = new Set(["seq", "at", "event", "epoch", "node", "detail", "since_ms", "step_ms"]);
  const words = (name) => { const t = String(name || "event").replace(/([a-z0-9])([A-Z])/g, "$1 $2").toLowerCase(); return t[0].toUpperCase() + t.slice(1); };

  function detail(r) {
    const parts = [];
    if (r.node) parts.push("node " + r.node);
    if (r.epoch) parts.push("epoch " + r.epoch);
    if (typeof r.detail === "string") { if (r.detail) parts.push(r.detail); }
    else for (const [k, v] of Object.entries(r.detail || {})) parts.push(k.replaceAll("_", " ") + " " + (typeof v === "object" ? JSON.stringify(v) : v));
    for (const [k, v] of Object.entries(r)) if (!KNOWN.has(k) && v !== "" && v !== null && typeof v !== "object") parts.push(k.replaceAll("_", " ") + " " + v);
    return parts.join(" · ");
  }

  const shown = new Set();
  function addEvent(id, r) {
    if (shown.has(id)) return;
    shown.add(id);
    const kind = KINDS[r.event] || "", step = Number(r.step_ms), since = Number(r.since_ms);
    const li = el("li", { "data-kind": kind },
      el("time", { datetime: r.at, title: r.at }, clock(r.at, true)), el("span", { class: "dot" }),
      el("p", {}, el("b", {}, words(r.event)), el("span", {}, detail(r))));
    const bar = el("span", { class: "step", title: since > 0 ? duration(since) + " after it began" : undefined });
    if (Number.isFinite(step) && step > 0 && step < 60e3) {
      bar.append("+" + duration(step), el("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none" },
        el("rect", { height: "1", width: String(Math.min(1, Math.log10(1 + step) / 4)) })));
    }
    li.append(bar);
    const list = $("events");
    if (list.firstChild && FIRST.has(r.event)) list.firstChild.classList.add("first");
    list.prepend(li);
    while (list.children.length > KEEP_EVENTS) list.lastChild.remove();
    if (shown.size > 5000) shown.clear();
    $("no-events").hidden = true;
  }

  enter();
  setInterval(() => { if (!document.hidden) refresh(); renderLive(); }, POLL_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
})();
