// The facts of a page as it is shown: see Facts.
(() => {
  const color = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, below) => {
    const mix = (x, y) => x * top.a + y * (1 - top.a);
    return { r: mix(top.r, below.r), g: mix(top.g, below.g), b: mix(top.b, below.b), a: 1 };
  };
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.backgroundColor = "Canvas";
  const canvas = color(getComputedStyle(probe).backgroundColor);
  probe.remove();
  const background = (element) => {
    if (!element) return canvas;
    const own = color(getComputedStyle(element).backgroundColor);
    return own.a === 1 ? own : over(own, background(element.parentElement));
  };
  // https://www.w3.org/TR/WCAG21/#dfn-relative-luminance
  const luminance = ({ r, g, b }) => {
    const [R, G, B] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const contrast = (element) => {
    const behind = background(element);
    const [x, y] = [luminance(over(color(getComputedStyle(element).color), behind)), luminance(behind)].sort((a, b) => b - a);
    return (x + 0.05) / (y + 0.05);
  };
  const found = { Width: document.documentElement.scrollWidth, Window: innerWidth, Text: document.body.innerText, Texts: 0, Faint: [], Cut: [] };
  found.Bytes = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter((e) => e.initiatorType !== "fetch").reduce((sum, e) => sum + e.decodedBodySize, 0);
  for (const element of document.body.querySelectorAll("*")) {
    if (element.clientWidth && element.scrollWidth > element.clientWidth && getComputedStyle(element).overflowX !== "visible")
      found.Cut.push(`${element.scrollWidth - element.clientWidth} pixels of ${element.tagName} ${element.className}: ${element.innerText.slice(0, 60)}`);
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
    if (!text || !element.getClientRects().length || element.closest("script,style,noscript,svg")) continue;
    found.Texts++;
    const c = contrast(element);
    if (c < 4.5) found.Faint.push(`${c.toFixed(2)}: ${text.slice(0, 60)}`);
  }
  return found;
})()
