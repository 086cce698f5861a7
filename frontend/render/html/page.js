// SPDX-License-Identifier: GPL-2.0-only
// The part of the report that moves: the flame graph, and sites beyond those in the page.
// Strings of the kernel reach the page through textContent only.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const {frames, nodes} = data;
  const count = nodes.frame.length;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let value = bytes, unit = 0;
    while (value >= 1023.5 && unit < units.length - 1) { value /= 1024; unit++; }
    return (unit && value < 99.95 ? value.toFixed(1) : Math.round(value)) + " " + units[unit];
  }

  // --- sites that the page does not hold -----------------------------------------------------

  const more = byId("more");
  let shown = 0;

  function stackOf(leaf) {
    const list = element("ol", "stack");
    for (let node = leaf; node > 0; node = nodes.parent[node]) {
      const item = element("li");
      item.append(element("code", "", frames[nodes.frame[node]][0]));
      const place = frames[nodes.frame[node]][1];
      if (place) item.append(" ", element("span", "place", place));
      list.append(item);
    }
    return list;
  }

  function siteOf([rank, verdict, score, allocator, held, growth, leaf, evidence, kind, standing]) {
    const item = element("li", kind), details = element("details"), summary = element("summary");
    const frame = frames[nodes.frame[leaf[1]]];
    summary.append(element("span", "badge verdict-" + verdict, verdict), " ",
      element("span", "rank", rank), " ", element("code", "", frame[0]), " ",
      element("span", "held", held));
    for (const [mark] of standing) summary.append(" ", element("span", "tag", mark));
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (!details.open || details.children.length > 1) return;
      const body = element("div", "site"), stack = element("div", "scroll");
      body.append(element("p", "meta", `score ${score}, ${allocator}` + (growth ? `, per cycle ${growth}` : "")));
      for (const [mark, says] of standing) body.append(element("p", "standing", `${mark}: ${says}`));
      stack.append(stackOf(leaf[0]));
      const reasons = element("ul", "notes");
      for (const reason of evidence) reasons.append(element("li", "", data.strings[reason]));
      body.append(stack, reasons);
      details.append(body);
    });
    item.append(details);
    return item;
  }

  function showMore() {
    const next = data.sites.slice(shown, shown + 200);
    byId("site-list").append(...next.map(siteOf));
    shown += next.length;
    const left = data.sites.length - shown;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(200, left)} of ${left} more`;
  }

  more.addEventListener("click", showMore);
  if (data.sites.length) {
    more.hidden = false;
    more.textContent = `Show ${Math.min(200, data.sites.length)} of ${data.sites.length} more`;
  }

  // --- flame graph ---------------------------------------------------------------------------

  const ROW = 20, LEAST = 3;
  const flame = byId("flame"), status = byId("flame-status"), reset = byId("reset");
  const search = byId("search");
  const children = Array.from({length: count}, () => null);
  for (let node = 1; node < count; node++) {
    const parent = nodes.parent[node];
    (children[parent] ??= []).push(node);
  }
  let measure = "bytes", zoomed = 0, hits = null, hitText = "";

  const valueOf = (node) => nodes[measure][node];
  const label = (node) => node === 0 ? "all" : frames[nodes.frame[node]][0];
  const amount = (value) => measure === "bytes" ? size(value) : `${value} objects`;

  function describe(node) {
    const share = 100 * valueOf(node) / (valueOf(0) || 1);
    const place = node ? frames[nodes.frame[node]][1] : "";
    return `${label(node)}${place ? " " + place : ""}: ${amount(valueOf(node))}, ${share.toFixed(1)} %`;
  }

  function add(node, depth, left, width, drawn) {
    const box = element("button", "", label(node));
    box.type = "button";
    box.tabIndex = -1;
    box.dataset.node = node;
    box.dataset.depth = depth;
    if (node && frames[nodes.frame[node]][2]) box.classList.add("module");
    if (depth < drawn.outside) box.classList.add("outside");
    if (hits && node && hits[nodes.frame[node]]) box.classList.add("hit");
    box.title = describe(node);
    box.setAttribute("aria-label", describe(node));
    box.style.left = `${left}px`;
    box.style.width = `${width}px`;
    box.style.top = `${depth * ROW}px`;
    drawn.boxes.push(box);
    drawn.depth = Math.max(drawn.depth, depth);
  }

  function draw(focus) {
    const width = flame.clientWidth;
    const above = [];
    for (let node = zoomed; node > 0; node = nodes.parent[node]) above.unshift(nodes.parent[node]);
    const drawn = {boxes: [], depth: 0, outside: above.length};
    above.forEach((node, depth) => add(node, depth, 0, width, drawn));
    const scale = width / (valueOf(zoomed) || 1);
    const waiting = [[zoomed, above.length, 0]];
    while (waiting.length) {
      const [node, depth, left] = waiting.pop();
      add(node, depth, left, valueOf(node) * scale, drawn);
      let at = left;
      const below = [...(children[node] ?? [])].sort((a, b) => valueOf(b) - valueOf(a));
      for (const child of below) {
        const wide = valueOf(child) * scale;
        if (wide < LEAST) break;  // sorted: the others are no wider
        waiting.push([child, depth + 1, at]);
        at += wide;
      }
    }
    flame.replaceChildren(...drawn.boxes);
    flame.style.height = `${(drawn.depth + 1) * ROW}px`;
    reset.disabled = zoomed === 0;
    const current = drawn.boxes.find((box) => Number(box.dataset.node) === (focus ?? zoomed));
    if (current) current.tabIndex = 0;
    if (focus !== undefined && current) current.focus();
    tell();
  }

  function tell() {
    if (!hits) { status.textContent = describe(zoomed); return; }
    // Not twice where a hit stands above another one: only the outermost counts.
    let total = 0;
    const covered = new Uint8Array(count);
    for (let node = 1; node < count; node++) {
      if (covered[nodes.parent[node]]) { covered[node] = 1; continue; }
      if (hits[nodes.frame[node]]) { covered[node] = 1; total += valueOf(node); }
    }
    const share = 100 * total / (valueOf(0) || 1);
    status.textContent = `${amount(total)}, ${share.toFixed(1)} %, match "${hitText}"`;
  }

  function find(text) {
    hitText = text;
    const wanted = text.toLowerCase();
    hits = text ? Uint8Array.from(frames, ([name, place]) =>
      `${name} ${place}`.toLowerCase().includes(wanted) ? 1 : 0) : null;
    for (const box of flame.children) {
      const node = Number(box.dataset.node);
      box.classList.toggle("hit", Boolean(hits && node && hits[nodes.frame[node]]));
    }
    tell();
  }

  function zoom(node) { zoomed = node; draw(node); }

  function neighbour(box, key) {
    const boxes = [...flame.children], depth = Number(box.dataset.depth);
    const node = Number(box.dataset.node);
    if (key === "ArrowUp") return boxes.find((b) => node && Number(b.dataset.node) === nodes.parent[node]);
    if (key === "ArrowDown") {
      return boxes.filter((b) => Number(b.dataset.node) && nodes.parent[Number(b.dataset.node)] === node)
        .sort((a, b) => parseFloat(a.style.left) - parseFloat(b.style.left))[0];
    }
    const row = boxes.filter((b) => Number(b.dataset.depth) === depth)
      .sort((a, b) => parseFloat(a.style.left) - parseFloat(b.style.left));
    return row[row.indexOf(box) + (key === "ArrowRight" ? 1 : -1)];
  }

  flame.addEventListener("click", (event) => {
    const box = event.target.closest("button");
    if (box) zoom(Number(box.dataset.node));
  });
  flame.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { zoom(0); return; }
    if (!event.key.startsWith("Arrow")) return;
    const next = neighbour(event.target, event.key);
    event.preventDefault();
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  flame.addEventListener("focusin", (event) => { status.textContent = event.target.title; });
  flame.addEventListener("mouseover", (event) => {
    const box = event.target.closest("button");
    if (box) status.textContent = box.title;
  });
  flame.addEventListener("mouseleave", tell);
  reset.addEventListener("click", () => zoom(0));
  search.addEventListener("input", () => find(search.value.trim()));
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; find(""); }
  });
  for (const radio of document.querySelectorAll("input[name=measure]")) {
    radio.addEventListener("change", () => { measure = radio.value; draw(); });
  }
  let width = flame.clientWidth;
  addEventListener("resize", () => {
    if (flame.clientWidth !== width) { width = flame.clientWidth; draw(); }
  });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    draw();
  });
  if (count > 1) draw();
  else status.textContent = "Nothing was outstanding.";
})();
