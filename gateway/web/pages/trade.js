"use strict";
// The trading page: public streams for the market, signed REST for the account, private events to know when to look again.
const $ = (id) => document.getElementById(id);
const INTERVALS = ["1s", "1m", "5m", "15m", "1h", "4h", "1d"];
const FIELDS = {
  LIMIT: ["price", "tif"], MARKET: [], LIMIT_MAKER: ["price"], STOP_LOSS: ["stop"], STOP_LOSS_LIMIT: ["price", "stop", "tif"],
  TAKE_PROFIT: ["stop"], TAKE_PROFIT_LIMIT: ["price", "stop", "tif"], OCO: ["price", "stop", "stoplimit"],
};
const DEPTH_SPAN = 0.02, ROWS = 11, TAPE_ROWS = 60, RECONNECT_MS = 1000, REFRESH_MS = 150;
const state = { symbol: "", info: {}, interval: "1m", side: "BUY", tab: "orders", socket: null, key: null, skewMs: 0, last: 0 };

// ---- small things -------------------------------------------------------------------------------------------------
function show(error) { $("error").hidden = !error; $("error").textContent = error || ""; }
function trim(text) { return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text; }
function fixed(text, step) { // as many decimals as the step has
  const places = (trim(step || "1").split(".")[1] || "").length;
  const [whole, part = ""] = String(text).split(".");
  return places ? `${whole}.${(part + "0".repeat(places)).slice(0, places)}` : whole;
}
const priceText = (text) => fixed(text, state.info.tick);
const quantityText = (text) => fixed(text, state.info.step);
function row(cells, classes = []) {
  const tr = document.createElement("tr");
  cells.forEach((cell, at) => {
    const td = document.createElement("td");
    if (cell instanceof Node) td.append(cell); else td.textContent = cell;
    if (classes[at]) td.className = classes[at];
    tr.append(td);
  });
  return tr;
}
function describe(body) { // an answer of the exchange, for people
  const details = body.details || {};
  let text = `${body.msg || "refused"} (${body.code})`;
  if (details.field) text += ` – ${details.field}: ${details.value ?? ""}`;
  if (details.limit !== undefined) text += `, limit ${details.limit}`;
  if (details.nearest) text += `, nearest valid ${details.nearest.map(trim).join(" or ")}`;
  return text;
}
async function get(path, params = {}) {
  const answer = await fetch(`/api/v3/${path}?${new URLSearchParams(params)}`);
  const body = await answer.json();
  if (!answer.ok) throw new Error(describe(body));
  return body;
}

// ---- signing ------------------------------------------------------------------------------------------------------
async function sign(text) {
  const mac = await crypto.subtle.sign("HMAC", state.key.hmac, new TextEncoder().encode(text));
  return [...new Uint8Array(mac)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
async function signed(method, path, params = {}) {
  const query = new URLSearchParams({ ...params, timestamp: Date.now() + state.skewMs }).toString();
  const url = `/api/v3/${path}?${query}&signature=${await sign(query)}`;
  const answer = await fetch(url, { method, headers: { "X-MBX-APIKEY": state.key.id } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(describe(body.data ? { ...body, ...body.data } : body));
  return body;
}
async function login(id, secret) {
  if (!crypto.subtle) throw new Error("This page must come over https, or from this machine, for the browser to sign.");
  const asked = Date.now();
  const { serverTime } = await get("time");
  state.skewMs = Math.round(serverTime - (asked + Date.now()) / 2);
  const hmac = await crypto.subtle.importKey("raw", new TextEncoder().encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  state.key = { id, hmac };
  try { await signed("GET", "account"); } catch (error) { state.key = null; throw error; }
  $("login-open").textContent = "Log out";
  $("cancel-all").hidden = false;
  privateEvents();
  await refresh();
}
function logout() {
  state.key = null;
  if (state.events) state.events.close();
  $("login-open").textContent = "Log in";
  $("cancel-all").hidden = true;
  const text = document.createElement("p");
  text.className = "dim";
  text.textContent = "Log in to see orders, fills and balances.";
  $("private").replaceChildren(text);
}

// ---- chart --------------------------------------------------------------------------------------------------------
const chart = LightweightCharts.createChart($("chart"), {
  autoSize: true, layout: { background: { color: "#1a1f28" }, textColor: "#97a2b2" },
  grid: { vertLines: { color: "#232a35" }, horzLines: { color: "#232a35" } },
  timeScale: { timeVisible: true, secondsVisible: true, borderColor: "#2b323e" }, rightPriceScale: { borderColor: "#2b323e" },
});
const candles = chart.addCandlestickSeries({ upColor: "#2ebd85", downColor: "#f6465d", wickUpColor: "#2ebd85", wickDownColor: "#f6465d", borderVisible: false });
const volumes = chart.addHistogramSeries({ lastValueVisible: false, priceLineVisible: false, priceScaleId: "volume", priceFormat: { type: "volume" } });
chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
function candle(time, open, high, low, close) {
  return { time: time / 1000, open: +open, high: +high, low: +low, close: +close };
}
function volume(time, quantity, up) { return { time: time / 1000, value: +quantity, color: up ? "#2ebd8566" : "#f6465d66" }; }
async function loadCandles() {
  const symbol = state.symbol, interval = state.interval;
  const rows = await get("klines", { symbol, interval, limit: 500 });
  if (symbol !== state.symbol || interval !== state.interval) return;
  const places = (trim(state.info.tick).split(".")[1] || "").length;
  candles.applyOptions({ priceFormat: { type: "price", precision: places, minMove: +state.info.tick } });
  candles.setData(rows.map((r) => candle(r[0], r[1], r[2], r[3], r[4])));
  volumes.setData(rows.map((r) => volume(r[0], r[5], +r[4] >= +r[1])));
  chart.timeScale().scrollToRealTime();
}
function onCandle({ k }) {
  if (k.i !== state.interval || !+k.c) return;
  try {
    candles.update(candle(k.t, k.o, k.h, k.l, k.c));
    volumes.update(volume(k.t, k.v, +k.c >= +k.o));
  } catch { /* older than what is shown */ }
}

// ---- book, depth, tape --------------------------------------------------------------------------------------------
function fillSide(id, levels, side) {
  let sum = 0;
  const rows = levels.slice(0, ROWS).map(([price, quantity]) => {
    sum += +quantity;
    const tr = row([priceText(price), quantityText(quantity), sum.toFixed(3)], [side]);
    tr.dataset.price = trim(price);
    return tr;
  });
  if (id === "asks") rows.reverse();
  $(id).tBodies[0].replaceChildren(...rows);
}
function drawBook({ bids, asks }) {
  fillSide("asks", asks, "sell-text");
  fillSide("bids", bids, "buy-text");
  $("spread").textContent = bids.length && asks.length ? `spread ${priceText((asks[0][0] - bids[0][0]).toFixed(8))}` : "one side is empty";
  const near = (levels) => levels.filter(([price]) => Math.abs(price / levels[0][0] - 1) < DEPTH_SPAN);
  drawDepth(near(bids), near(asks));
}
function drawDepth(bids, asks) {
  const canvas = $("depth"), scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== width * scale || canvas.height !== height * scale) { canvas.width = width * scale; canvas.height = height * scale; }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(scale, 0, 0, scale, 0, 0);
  ctx.clearRect(0, 0, width, height);
  if (!bids.length || !asks.length) return;
  const sums = (levels) => { let sum = 0; return levels.map(([price, quantity]) => [+price, (sum += +quantity)]); };
  const left = sums(bids), right = sums(asks), top = Math.max(left.at(-1)[1], right.at(-1)[1]);
  const low = left.at(-1)[0], span = right.at(-1)[0] - low || 1;
  const x = (price) => (price - low) / span * width, y = (sum) => height - sum / top * (height - 8);
  for (const [levels, color] of [[left, "#2ebd85"], [right, "#f6465d"]]) {
    ctx.beginPath();
    ctx.moveTo(x(levels[0][0]), height);
    let before = height;
    for (const [price, sum] of levels) { ctx.lineTo(x(price), before); ctx.lineTo(x(price), (before = y(sum))); }
    ctx.lineTo(x(levels.at(-1)[0]), height);
    ctx.closePath();
    ctx.fillStyle = `${color}55`; ctx.fill();
    ctx.strokeStyle = color; ctx.stroke();
  }
}
function drawTrades(trades) {
  const body = $("tape").tBodies[0];
  for (const trade of trades.slice(-TAPE_ROWS)) body.prepend(row([new Date(trade.T).toLocaleTimeString([], { hour12: false }), quantityText(trade.q), priceText(trade.p)], ["dim", "", trade.m ? "sell-text" : "buy-text"]));
  while (body.rows.length > TAPE_ROWS) body.lastChild.remove();
  const trade = trades.at(-1), last = +trade.p;
  $("last").textContent = priceText(trade.p);
  $("last").className = `big ${last >= state.last ? "up" : "down"}`;
  state.last = last;
  document.title = `${priceText(trade.p)} ${state.symbol} · Bullring`;
}
// However fast messages come, the page is drawn once a frame, and not at all while nobody sees it.
const drawn = { book: null, trades: [], waiting: false };
function drawSoon() {
  if (drawn.waiting) return;
  drawn.waiting = true;
  requestAnimationFrame(() => {
    const { book, trades } = drawn;
    Object.assign(drawn, { book: null, trades: [], waiting: false });
    if (book) drawBook(book);
    if (trades.length) drawTrades(trades);
  });
}
function onBook(book) { drawn.book = book; drawSoon(); }
function onTrade(trade) {
  drawn.trades.push(trade);
  if (drawn.trades.length > TAPE_ROWS) drawn.trades.shift();
  drawSoon();
}
function onTicker(t) {
  $("change").textContent = `${t.P} %`;
  $("change").className = +t.P >= 0 ? "up" : "down";
  $("high").textContent = priceText(t.h); $("low").textContent = priceText(t.l); $("volume").textContent = quantityText(t.v);
  if (!state.last && +t.c) $("last").textContent = priceText(t.c);
}

// ---- streams ------------------------------------------------------------------------------------------------------
const HANDLERS = { trade: onTrade, kline: onCandle, "24hrTicker": onTicker };
function connect() {
  if (state.socket) { state.socket.onclose = null; state.socket.close(); }
  const s = state.symbol.toLowerCase(), names = [`${s}@trade`, `${s}@kline_${state.interval}`, `${s}@depth20@100ms`, `${s}@ticker`];
  const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/stream?streams=${names.join("/")}`);
  state.socket = socket;
  socket.onopen = () => { $("link").textContent = "live"; $("link").className = "pill good"; };
  socket.onmessage = (event) => {
    const { stream, data } = JSON.parse(event.data);
    if (data.e && HANDLERS[data.e]) HANDLERS[data.e](data);
    else if (stream.includes("@depth20")) onBook(data);
  };
  socket.onclose = () => {
    $("link").textContent = "reconnecting"; $("link").className = "pill bad";
    setTimeout(() => { if (state.socket === socket) { connect(); loadCandles().catch(() => 0); } }, RECONNECT_MS);
  };
}
async function privateEvents() {
  const key = state.key, socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws-api/v3`);
  state.events = socket;
  socket.onopen = async () => {
    const params = { apiKey: key.id, timestamp: Date.now() + state.skewMs };
    params.signature = await sign(`apiKey=${params.apiKey}&timestamp=${params.timestamp}`);
    socket.send(JSON.stringify({ id: 1, method: "userDataStream.subscribe.signature", params }));
    refreshSoon();
  };
  socket.onmessage = (message) => { if (JSON.parse(message.data).event) refreshSoon(); };
  socket.onclose = () => { if (state.key === key) setTimeout(() => state.key === key && privateEvents(), RECONNECT_MS); };
}

// ---- the account --------------------------------------------------------------------------------------------------
let refreshTimer = 0;
function refreshSoon() { if (!refreshTimer) refreshTimer = setTimeout(() => { refreshTimer = 0; refresh(); }, REFRESH_MS); }
function listed(head, rows, nothing) {
  if (!rows.length) { const p = document.createElement("p"); p.className = "dim"; p.textContent = nothing; return p; }
  const table = document.createElement("table"), top = row([]);
  for (const text of head) { const th = document.createElement("th"); th.textContent = text; top.append(th); }
  table.append(top, ...rows);
  return table;
}
const when = (ms) => new Date(ms).toLocaleString([], { hour12: false });
const sideClass = (side) => (side === "BUY" ? "buy-text" : "sell-text");
const VIEWS = {
  async orders() {
    const orders = await signed("GET", "openOrders");
    return listed(["Time", "Pair", "Side", "Type", "Price", "Stop", "Quantity", "Filled", ""], orders.map((o) => {
      const button = document.createElement("button");
      button.textContent = "Cancel";
      button.dataset.cancel = o.orderId;
      button.onclick = () => act(() => signed("DELETE", "order", { symbol: o.symbol, orderId: o.orderId }), `canceled ${o.orderId}`);
      return row([when(o.time), o.symbol, o.side, o.type, trim(o.price), +o.stopPrice ? trim(o.stopPrice) : "", trim(o.origQty), trim(o.executedQty), button], ["dim", "", sideClass(o.side)]);
    }), "No open orders.");
  },
  async fills() {
    const fills = await signed("GET", "myTrades", { symbol: state.symbol, limit: 100 });
    return listed(["Time", "Pair", "Side", "Price", "Quantity", "Fee", "Role"], fills.reverse().map((f) =>
      row([when(f.time), f.symbol, f.isBuyer ? "BUY" : "SELL", trim(f.price), trim(f.qty), `${trim(f.commission)} ${f.commissionAsset}`, f.isMaker ? "maker" : "taker"],
        ["dim", "", sideClass(f.isBuyer ? "BUY" : "SELL")])), `No fills of ${state.symbol}.`);
  },
  async balances() {
    const { balances } = await signed("GET", "account", { omitZeroBalances: true });
    return listed(["Asset", "Free", "Locked"], balances.map((b) => row([b.asset, b.free, b.locked])), "No balances.");
  },
};
async function refresh() {
  if (!state.key) return;
  const tab = state.tab;
  try {
    const view = await VIEWS[tab]();
    if (state.key && tab === state.tab) $("private").replaceChildren(view);
    show("");
  } catch (error) { show(error.message); }
}
async function act(work, done) {
  try {
    await work();
    $("result").className = "buy-text"; $("result").textContent = done;
  } catch (error) { $("result").className = "sell-text"; $("result").textContent = error.message; }
  refreshSoon();
}

// ---- the form -----------------------------------------------------------------------------------------------------
function setSide(side) {
  state.side = side;
  $("buy").classList.toggle("on", side === "BUY"); $("sell").classList.toggle("on", side === "SELL");
  $("submit").className = side.toLowerCase();
  $("submit").textContent = `${side === "BUY" ? "Buy" : "Sell"} ${state.info.base || ""}`;
}
function setType() {
  const fields = FIELDS[$("type").value];
  for (const label of document.querySelectorAll("[data-for]")) label.hidden = !fields.includes(label.dataset.for);
  estimate();
}
function estimate() {
  const price = FIELDS[$("type").value].includes("price") ? +$("price").value : state.last;
  const total = price * +$("quantity").value;
  $("estimate").textContent = total > 0 ? `about ${total.toLocaleString([], { maximumFractionDigits: 2 })} ${state.info.quote}` : "\u00a0";
}
function terms() {
  const type = $("type").value, value = (id) => $(id).value.trim();
  const order = { symbol: state.symbol, side: state.side, quantity: value("quantity") };
  if (type !== "OCO") {
    order.type = type;
    const names = { price: "price", stop: "stopPrice", tif: "timeInForce" };
    for (const field of FIELDS[type]) order[names[field]] = value(field);
    return ["order", order];
  }
  const [limit, stop] = state.side === "SELL" ? ["above", "below"] : ["below", "above"], stopLimit = value("stoplimit");
  Object.assign(order, { [`${limit}Type`]: "LIMIT_MAKER", [`${limit}Price`]: value("price"), [`${stop}Type`]: stopLimit ? "STOP_LOSS_LIMIT" : "STOP_LOSS", [`${stop}StopPrice`]: value("stop") });
  if (stopLimit) Object.assign(order, { [`${stop}Price`]: stopLimit, [`${stop}TimeInForce`]: "GTC" });
  return ["orderList/oco", order];
}
async function send(event) {
  event.preventDefault();
  if (!state.key) { $("login").showModal(); return; }
  const [path, order] = terms();
  const empty = Object.entries(order).find(([, value]) => value === "");
  if (empty) { $("result").className = "sell-text"; $("result").textContent = `${empty[0]} is missing`; return; }
  $("submit").disabled = true;
  let told = "";
  await act(async () => {
    const answer = await signed("POST", path, order);
    told = answer.status ? `order ${answer.orderId}: ${answer.status}` : `list ${answer.orderListId}: ${answer.listOrderStatus}`;
    if (!answer.status && answer.orderId) told = `order ${answer.orderId} accepted`;
  }, "");
  if (told) $("result").textContent = told;
  $("submit").disabled = false;
}

// ---- begin --------------------------------------------------------------------------------------------------------
async function choose(symbol) {
  state.symbol = symbol; state.last = 0;
  state.info = state.pairs[symbol];
  $("status").textContent = state.info.status.toLowerCase();
  $("status").className = `pill ${state.info.status === "TRADING" ? "good" : "bad"}`;
  Object.assign(drawn, { book: null, trades: [] });
  for (const id of ["tape", "asks", "bids"]) $(id).tBodies[0].replaceChildren();
  for (const id of ["last", "high", "low", "volume"]) $(id).textContent = "–";
  setSide(state.side);
  connect();
  const [, trades] = await Promise.all([loadCandles(), get("trades", { symbol, limit: 40 })]);
  const older = trades.map((t) => ({ T: t.time, q: t.qty, p: t.price, m: t.isBuyerMaker }));
  if (symbol === state.symbol && older.length && !$("tape").tBodies[0].rows.length) drawTrades(older);
  refresh();
}
async function begin() {
  const { symbols } = await get("exchangeInfo");
  state.pairs = Object.fromEntries(symbols.map((s) => {
    const filter = (name) => s.filters.find((f) => f.filterType === name) || {};
    return [s.symbol, { status: s.status, base: s.baseAsset, quote: s.quoteAsset, tick: filter("PRICE_FILTER").tickSize, step: filter("LOT_SIZE").stepSize }];
  }));
  $("symbol").replaceChildren(...symbols.map((s) => new Option(`${s.baseAsset}/${s.quoteAsset}`, s.symbol)));
  const wanted = location.hash.slice(1);
  $("symbol").value = state.pairs[wanted] ? wanted : symbols[0].symbol;
  await choose($("symbol").value);
}
for (const interval of INTERVALS) {
  const button = document.createElement("button");
  button.textContent = interval;
  button.classList.toggle("on", interval === state.interval);
  button.onclick = () => {
    state.interval = interval;
    for (const each of $("intervals").children) each.classList.toggle("on", each.textContent === interval);
    loadCandles().catch((error) => show(error.message));
    connect();
  };
  $("intervals").append(button);
}
function tab(name) {
  state.tab = name;
  for (const each of document.querySelectorAll("[data-tab]")) each.classList.toggle("on", each.dataset.tab === name);
  refresh();
}
$("symbol").onchange = () => { location.hash = $("symbol").value; choose($("symbol").value).catch((error) => show(error.message)); };
$("type").onchange = setType;
$("buy").onclick = () => setSide("BUY"); $("sell").onclick = () => setSide("SELL");
$("order").onsubmit = send;
for (const id of ["price", "quantity"]) $(id).oninput = estimate;
for (const id of ["asks", "bids"]) $(id).onclick = (event) => { const tr = event.target.closest("tr"); if (tr) { $("price").value = tr.dataset.price; estimate(); } };
for (const each of document.querySelectorAll("[data-tab]")) each.onclick = () => tab(each.dataset.tab);
$("cancel-all").onclick = () => confirm("Cancel all open orders?") && act(() => signed("DELETE", "allOpenOrders"), "all orders canceled");
$("login-open").onclick = () => (state.key ? logout() : $("login").showModal());
$("login-cancel").onclick = () => $("login").close();
$("help-open").onclick = () => $("help").showModal();
$("login-form").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await login($("key").value.trim(), $("secret").value.trim());
    $("secret").value = ""; $("login-error").textContent = "";
    $("login").close();
  } catch (error) { $("login-error").textContent = error.message; }
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.activeElement) { document.activeElement.blur(); return; }
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]") || /^(INPUT|SELECT)$/.test(document.activeElement.tagName)) return;
  const keys = {
    b: () => { setSide("BUY"); $("quantity").focus(); }, s: () => { setSide("SELL"); $("quantity").focus(); }, p: () => $("price").focus(),
    q: () => $("quantity").focus(), t: () => $("type").focus(), "/": () => $("symbol").focus(), l: () => $("login-open").click(),
    1: () => tab("orders"), 2: () => tab("fills"), 3: () => tab("balances"), "?": () => $("help").showModal(),
  };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
setSide("BUY");
setType();
begin().catch((error) => show(`The exchange does not answer: ${error.message}`));
