// Read-outs of charts: the values of all lines at the step that is nearest to the pointer.
"use strict";
for (const figure of document.querySelectorAll("figure")) {
  const chart = JSON.parse(figure.querySelector("script").textContent);
  const svg = figure.querySelector("svg");
  const [low, high, left, right] = chart.x;
  const cursor = svg.querySelector(".cursor");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);
  const nearest = (points, step) => points.reduce(
    (best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const wanted = low + (x - left) / (right - left) * (high - low);
    const step = nearest(chart.lines.flatMap((line) => line.points), wanted)[0];
    const place = left + (step - low) / ((high - low) || 1) * (right - left);
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.removeAttribute("visibility");
    tip.replaceChildren(`${chart.of} ${step.toLocaleString("en")}`);
    for (const line of chart.lines) {
      const point = nearest(line.points, step);
      const row = document.createElement("div"), color = document.createElement("i");
      color.style.background = line.color;
      const there = point[0] === step ? "" : ` (at ${point[0].toLocaleString("en")})`;
      row.append(color, `${line.label} ${Number(point[1].toPrecision(5))}${there}`);
      tip.append(row);
    }
    tip.hidden = false;
    const at = place / svg.viewBox.baseVal.width * box.width;
    tip.style.left = `${at + 12 + tip.offsetWidth > box.width ? at - 12 - tip.offsetWidth : at + 12}px`;
    tip.style.top = `${Math.max(0, event.clientY - figure.getBoundingClientRect().top - 20)}px`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
  });
}
