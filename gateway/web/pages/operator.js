"use strict";
// The operator's page: what `bullring stat` knows, every two seconds, and how it has changed while somebody looked.
const $ = (id) => document.getElementById(id);
const EVERY_MS = 2000;
const COLORS = { p50_us: "#2ebd85", p99_us: "#f0b90b", "p99.9_us": "#f6465d" };
let token = sessionStorage.getItem("operator-token") || "";

function table(id, rows) {
  const table = $(id);
  if (!rows.length) { table.replaceChildren(); return; }
  const names = Object.keys(rows[0]), head = document.createElement("tr");
  for (const name of names) { const th = document.createElement("th"); th.textContent = name; head.append(th); }
  table.replaceChildren(head, ...rows.map((row) => {
    const tr = document.createElement("tr");
    for (const name of names) {
      const td = document.createElement("td"), value = row[name];
      td.textContent = value !== null && typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k} ${v}`).join(", ") : value;
      if (value === "gone" || (name === "status" && value !== "TRADING")) td.className = "sell-text";
      tr.append(td);
    }
    return tr;
  }));
}
function graph(id) {
  return LightweightCharts.createChart($(id), {
    autoSize: true, layout: { background: { color: "#1a1f28" }, textColor: "#97a2b2" },
    grid: { vertLines: { color: "#232a35" }, horzLines: { color: "#232a35" } }, timeScale: { timeVisible: true, secondsVisible: true },
  });
}
const latency = graph("lat"), rates = graph("rate");
const latencySeries = Object.fromEntries(Object.entries(COLORS).map(([name, color]) => [name, latency.addLineSeries({ color, title: name.replace("_us", ""), lineWidth: 2 })]));
const rateSeries = rates.addLineSeries({ color: "#4c8dff", title: "log", lineWidth: 2 });
let history = [];
function draw() {
  const what = $("what").value;
  const points = history.map((s) => [s.at, s.latency[what]]).filter(([, row]) => row);
  for (const name of Object.keys(COLORS)) latencySeries[name].setData(points.map(([time, row]) => ({ time, value: row[name] })));
  rateSeries.setData(history.map((s) => ({ time: s.at, value: s.per_s })));
}
function render({ facts, alerts, markets, samples }) {
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
  table("markets", markets);
  table("processes", facts.processes);
  table("rings", facts.rings);
  table("latency", facts.latency);
  const known = [...$("what").options].map((option) => option.value);
  for (const row of facts.latency) {
    const name = `${row.process} ${row.what}`;
    if (!known.includes(name)) $("what").append(new Option(name, name));
  }
  const ledger = facts.ledger;
  $("ledger").textContent = ledger === null ? "No ledger runs here." :
    `${ledger.state}: ${ledger.stored} records stored, ${ledger.lag} behind; ${ledger.marks_compared - ledger.marks_differing} of ${ledger.marks_compared} marks agree`;
  history = samples;
  $("updated").dataset.samples = samples.length;
  draw();
  $("updated").textContent = new Date().toLocaleTimeString([], { hour12: false });
}
async function look() {
  try {
    const answer = await fetch("/operator/data", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
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
