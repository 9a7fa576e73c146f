// The donut of Versions. A click on a slice filters the device list; the table beside it says the same.
(() => {
  "use strict";
  const place = document.getElementById("donut"), source = document.getElementById("slices");
  if (!place || !source || !window.echarts) return;
  const slices = JSON.parse(source.textContent);
  const chart = window.echarts.init(place, null, { renderer: "canvas" });
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(name).trim();
    chart.setOption({
      color: ["--s0", "--s1", "--s2", "--s3", "--s4", "--s5"].map(token),
      animation: !matchMedia("(prefers-reduced-motion: reduce)").matches,
      series: [{
        type: "pie",
        radius: ["54%", "78%"],
        itemStyle: { borderColor: token("--card"), borderWidth: 2 },
        // A phone has no room for them; the table below has the same words.
        label: { show: place.clientWidth >= 420, position: slices.length > 1 ? "outside" : "center", color: token("--ink"), lineHeight: 16, formatter: (slice) => `${slice.name.replace(" ", "\n")}  ${slices[slice.dataIndex].percent}%`, overflow: "truncate", width: 120 },
        labelLine: { show: place.clientWidth >= 420, lineStyle: { color: token("--ink-3") } },
        data: slices.map((slice) => ({ name: slice.name, value: slice.devices })),
      }],
    });
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => { chart.resize(); draw(); }).observe(place);
  chart.on("click", (slice) => {
    const version = slices[slice.dataIndex].version;
    if (version) location.href = `${place.dataset.url}&version=${encodeURIComponent(version)}#devices`;
  });
})();
