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

// What is printed is printed whole.
const folded = () => document.querySelectorAll("article details:not([open])");
window.addEventListener("beforeprint", () => folded().forEach((part) => { part.open = true; part.dataset.printed = ""; }));
window.addEventListener("afterprint", () =>
  document.querySelectorAll("details[data-printed]").forEach((part) => { part.open = false; delete part.dataset.printed; }));

// A wide formula, table or listing can be scrolled by keyboard too.
window.addEventListener("load", () => {
  for (const part of document.querySelectorAll("article div.math, article table, article pre")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
});
