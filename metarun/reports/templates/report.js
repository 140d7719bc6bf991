// Says on the page whether the plots were drawn, for readers and for the test.
const isDrawn = (node) => (node instanceof HTMLCanvasElement && node.width > 0)
  || [...(node.shadowRoot?.children ?? []), ...node.children].some(isDrawn);
window.addEventListener("load", () => {
  const plots = [...document.querySelectorAll(".plot")];
  let rounds = 0;
  const look = () => {
    const drawn = plots.filter(isDrawn).length;
    document.documentElement.dataset.plots = `${drawn} of ${plots.length}`;
    if (drawn === plots.length) return;
    rounds += 1;
    if (rounds < 40) setTimeout(look, 100);
    else document.getElementById("plots-failed").hidden = false;
  };
  look();
});
