// The landing page's player starts by itself, once, where motion is welcome. Its button pauses it.
for (const figure of document.querySelectorAll(".landing figure.frame-slider")) {
  const button = figure.querySelector("button");
  if (button && !button.hidden) {
    const seen = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); button.click(); }
    });
    seen.observe(figure);
  }
}

// The arrows that unfold the table of contents have no words of their own.
for (const arrow of document.querySelectorAll("nav summary")) {
  const entry = arrow.closest("li")?.querySelector(":scope > a")?.textContent.trim();
  if (entry && !arrow.textContent.trim()) arrow.setAttribute("aria-label", `Pages below ${entry}`);
}

// What is printed is printed whole.
const folded = () => document.querySelectorAll("article details:not([open])");
window.addEventListener("beforeprint", () => folded().forEach((part) => { part.open = true; part.dataset.printed = ""; }));
window.addEventListener("afterprint", () =>
  document.querySelectorAll("details[data-printed]").forEach((part) => { part.open = false; delete part.dataset.printed; }));

// A wide formula, table or listing can be scrolled by keyboard too.
const reachable = () => {
  for (const part of document.querySelectorAll("article div.math, article table, article pre")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
};

// A formula that is a little too wide is set a little smaller; below four fifths it scrolls instead.
const fit = () => {
  for (const part of document.querySelectorAll("article div.math")) {
    const box = part.querySelector("mjx-container");
    if (!box) continue;
    box.style.fontSize = "";
    const ratio = part.clientWidth / Math.max(part.scrollWidth, box.scrollWidth); // the theme lets the box scroll
    if (ratio < 1) box.style.fontSize = `${100 * Math.max(0.8, 0.99 * ratio)}%`;
  }
};
window.addEventListener("load", () => {
  reachable();
  window.MathJax?.startup?.promise.then(() => {
    fit();
    reachable();
    let timer = 0;
    window.addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(fit, 200); });
  });
});
