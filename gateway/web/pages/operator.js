"use strict";
// The operator's page: what `bullring stat` and `bullring ledger overview` know, every two seconds, and how it has changed.
const $ = (id) => document.getElementById(id);
const EVERY_MS = 2000, SAMPLES_MAX = 2000, SHOWN_MAX = 6;
const COLORS = ["#2ebd85", "#f0b90b", "#f6465d"], PERCENTILES = ["p50", "p99", "p99.9"];
let token = sessionStorage.getItem("operator-token") || "";

const number = (value) => typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : value;
const clock = (ns) => new Date(ns / 1e6).toISOString().slice(0, 19).replace("T", " ");
// Columns: title -> function of a row, giving text or [text, class].
function table(id, rows, columns, none) {
  const head = document.createElement("tr");
  for (const title of Object.keys(columns)) { const th = document.createElement("th"); th.textContent = title; head.append(th); }
  const lines = rows.map((row) => {
    const tr = document.createElement("tr");
    for (const of of Object.values(columns)) {
      const td = document.createElement("td"), [text, kind] = [of(row)].flat();
      td.textContent = number(text) ?? "";
      if (kind) td.className = kind;
      tr.append(td);
    }
    return tr;
  });
  if (!rows.length) {
    const tr = document.createElement("tr"), td = document.createElement("td");
    td.colSpan = Object.keys(columns).length; td.className = "dim"; td.textContent = none;
    tr.append(td); lines.push(tr);
  }
  $(id).replaceChildren(head, ...lines);
}
function graph(id, unit) {
  return LightweightCharts.createChart($(id), {
    autoSize: true, layout: { background: { color: "#1a1f28" }, textColor: "#97a2b2" },
    grid: { vertLines: { color: "#232a35" }, horzLines: { color: "#232a35" } },
    timeScale: { timeVisible: true, secondsVisible: true }, rightPriceScale: { scaleMargins: { top: 0.15, bottom: 0.05 } },
    localization: { priceFormatter: (value) => `${number(value)}${unit}` },
  });
}
const line = (chart, color, title) => chart.addLineSeries({ color, title, lineWidth: 2, priceLineVisible: false });
const latency = graph("lat", " µs"), rates = graph("rate", "");
const latencySeries = PERCENTILES.map((name, at) => line(latency, COLORS[at], name));
const rateSeries = { per_s: line(rates, "#4c8dff", "records/s"), lag: line(rates, "#f0b90b", "slowest reader"), ledger_lag: line(rates, "#b180f0", "ledger behind") };
let samples = [];
function draw() {
  const what = $("what").value;
  latencySeries.forEach((series, at) => {
    series.setData(samples.filter((s) => s.latency[what]).map((s) => ({ time: s.at, value: s.latency[what][at] })));
  });
  for (const [name, series] of Object.entries(rateSeries)) {
    series.setData(samples.filter((s) => s[name] !== null).map((s) => ({ time: s.at, value: s[name] })));
  }
}
function take(fresh) {
  const at = Object.fromEntries([...samples, ...fresh].map((s) => [s.at, s])); // another worker's may be older
  samples = Object.values(at).sort((a, b) => a.at - b.at).slice(-SAMPLES_MAX);
  const known = [...$("what").options].map((option) => option.value);
  for (const s of fresh) for (const name of Object.keys(s.latency)) {
    if (!known.includes(name)) { known.push(name); $("what").append(new Option(named(name), name)); }
  }
  $("updated").dataset.samples = samples.length;
  draw();
}
const named = (what) => what.replace(/_ns$/, "").replaceAll("_", " ");
function renderBooks(ledger, books) {
  const pill = $("balanced");
  pill.hidden = !books || books.balanced === undefined;
  if (!pill.hidden) {
    pill.textContent = books.balanced ? "every asset sums to zero" : "DOES NOT BALANCE";
    pill.className = `pill ${books.balanced ? "good" : "bad"}`;
  }
  $("ledger").textContent = ledger === null ? "No ledger runs here." :
    `${ledger.state}; ${number(ledger.stored)} records stored, ${number(ledger.lag)} behind; ${number(ledger.marks_compared - ledger.marks_differing)} of ${number(ledger.marks_compared)} hash marks of the exchange agree; books as of record ${books && books.position !== undefined ? number(books.position) : "–"}`;
  const rows = (books && books.trial_balance) || [], sums = (books && books.sums) || {};
  const totals = Object.entries(sums).map(([asset, sum]) => ({ asset, book: "sum", available: sum, held: "", accounts: "" }));
  const off = (row) => row.book === "sum" && Number(row.available) !== 0 ? "sell-text" : row.book === "sum" ? "dim" : "";
  const all = [...rows, ...totals].sort((a, b) => a.asset.localeCompare(b.asset) || (a.book === "sum") - (b.book === "sum"));
  table("trial", all, {
    asset: (r) => [r.asset, off(r)], book: (r) => [r.book, off(r)], available: (r) => [r.available, off(r)],
    held: (r) => r.held, accounts: (r) => r.accounts,
  }, ledger === null ? "" : "The books have not answered yet.");
  table("reconciliations", ((books && books.reconciliations) || []).slice(0, SHOWN_MAX), {
    "UTC": (r) => clock(r.ts_ns), compared: (r) => r.kind, "up to record": (r) => r.position, balances: (r) => r.compared,
    differences: (r) => [r.differences, r.differences ? "sell-text" : "buy-text"], first: (r) => r.first_difference || "–",
  }, ledger === null ? "" : "None yet.");
  const day = books && books.last_closed_day, transit = (books && books.in_transit) || [];
  $("closed").textContent = books && books.position !== undefined ?
    `Last closed day: ${day ? new Date(day.day * 864e5).toISOString().slice(0, 10) : "none"}. In transit: ${transit.length ? transit.map((t) => `${t.amount} ${t.asset} (${t.book} ${t.reference})`).slice(0, SHOWN_MAX).join(", ") : "nothing"}.` : "";
}
function render({ facts, alerts, markets, books, samples: fresh }) {
  $("name").textContent = facts.name;
  $("running").textContent = facts.running ? "running" : "NOT COMPLETE";
  $("running").className = `pill ${facts.running ? "good" : "bad"}`;
  $("mode").textContent = facts.mode; $("epoch").textContent = facts.epoch; $("disk").textContent = facts.storage.text;
  $("alerts").replaceChildren(...(alerts.length ? alerts : ["Nothing to worry about."]).map((text) => {
    const div = document.createElement("div");
    div.className = alerts.length ? "alert" : "alert fine";
    div.textContent = text;
    return div;
  }));
  table("markets", markets, { pair: (r) => r.pair, state: (r) => [r.status, r.status === "TRADING" ? "buy-text" : "sell-text"], partition: (r) => r.partition });
  table("processes", facts.processes, {
    process: (r) => r.process, state: (r) => [r.state, r.state === "running" ? "buy-text" : "sell-text"], "CPU %": (r) => r.cpu_percent,
    "started again": (r) => [r.restarts, r.restarts ? "sell-text" : ""], pid: (r) => String(r.pid), waits: (r) => r.wait, core: (r) => r.core,
  });
  table("rings", facts.rings, {
    ring: (r) => r.ring, "/s": (r) => r.per_s, published: (r) => r.published, visible: (r) => r.visible, slots: (r) => r.slots,
    behind: (r) => [Object.entries(r.lags).map(([k, v]) => `${k} ${number(v)}`).join(", ") || "nobody waits", Object.values(r.lags).some((v) => v > r.slots / 2) ? "sell-text" : ""],
  });
  table("latency", facts.latency, {
    process: (r) => r.process, what: (r) => named(r.what), p50: (r) => r.p50_us, p99: (r) => r.p99_us, "p99.9": (r) => r["p99.9_us"],
    count: (r) => r.count, period: (r) => r.period,
  }, "Nothing has been measured yet.");
  renderBooks(facts.ledger, books);
  take(fresh);
  $("updated").textContent = new Date().toLocaleTimeString([], { hour12: false });
}
async function look() {
  try {
    const since = samples.length ? samples[samples.length - 1].at : 0;
    const answer = await fetch(`/operator/data?since=${since}`, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
    const body = await answer.json();
    $("token-form").hidden = answer.status !== 401;
    if (!answer.ok) throw new Error(body.msg);
    render(body);
    $("error").hidden = true;
  } catch (error) { $("error").hidden = false; $("error").textContent = error.message; }
  setTimeout(look, EVERY_MS);
}
$("what").onchange = draw;
$("token-form").onsubmit = (event) => { event.preventDefault(); token = $("token").value.trim(); sessionStorage.setItem("operator-token", token); };
look();
