"""The page's style sheet: light and dark by preference, two columns on a desk, cards on a phone."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #f5f6f8; --ink: #1b1f24; --soft: #57606a; --rule: #d5dae0;
  --raw: #b4540a; --calibrated: #1a5fb4; --good: #1a7f5a; --bad: #b3261e; --mark: #7a3fb0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --card: #1e2329; --ink: #e6e9ed; --soft: #a3adb8; --rule: #3a424c;
    --raw: #f0a35e; --calibrated: #7cb4ff; --good: #5cc9a0; --bad: #ff8f85; --mark: #cfa6ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif;
}
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
footer { padding-top: 24px; padding-bottom: 40px; color: var(--soft); font-size: 14px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 20px; margin: 40px 0 8px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 16px; margin: 18px 0 4px; }
p { margin: 6px 0; max-width: 75ch; }
.note { color: var(--soft); font-size: 14px; }

.tiles {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  gap: 12px;
  margin: 16px 0;
  padding: 0;
}
.tiles div { background: var(--card); border-radius: 8px; padding: 10px 14px; }
.tiles dt { color: var(--soft); font-size: 14px; }
.tiles dd { margin: 0; font-size: 22px; font-variant-numeric: tabular-nums; }
.tiles dd small, td small {
  display: block;
  color: var(--soft);
  font-size: 13px;
  white-space: nowrap;
}
td small { font-size: 12px; }

.promise {
  background: var(--card);
  border-left: 4px solid var(--mark);
  border-radius: 0 8px 8px 0;
  padding: 8px 16px;
  margin: 12px 0;
}
.promise p { max-width: none; }
.charts {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr));
  gap: 8px 28px;
}
figure { margin: 8px 0; min-width: 0; }
figcaption { font-weight: 600; font-size: 15px; }
svg { width: 100%; max-width: 500px; height: auto; display: block; }

table { border-collapse: collapse; width: 100%; font-size: 15px; margin: 8px 0; }
th, td {
  padding: 6px 10px;
  text-align: right;
  vertical-align: top;
  border-bottom: 1px solid var(--rule);
  font-variant-numeric: tabular-nums;
}
th { font-weight: 600; }
td, thead th + th { overflow-wrap: normal; }
thead th { color: var(--soft); font-size: 14px; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; }
.scroll { overflow-x: auto; }
.scroll:focus-visible, summary:focus-visible {
  outline: 2px solid var(--calibrated);
  outline-offset: 2px;
}
details { margin: 4px 0 12px; }
summary { cursor: pointer; color: var(--soft); font-size: 14px; }
details table { font-size: 14px; }

.answers { padding-left: 1.6em; }
.answers li { margin: 0 0 16px; padding-left: 4px; }
.answers dl, .facts {
  display: grid;
  grid-template-columns: fit-content(40%) minmax(0, 1fr);
  gap: 2px 14px;
  margin: 4px 0;
}
.answers dt, .facts dt { color: var(--soft); }
.answers dd, .facts dd { margin: 0; white-space: pre-wrap; }
.claims li { max-width: 75ch; margin: 4px 0; }

svg text { fill: var(--ink); font-family: inherit; }
svg text.title, svg text.label { font-size: 12px; }
svg text.tick { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--rule); stroke-width: 0.6; }
svg .axis { stroke: var(--soft); }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg polyline.raw { stroke: var(--raw); stroke-dasharray: 6 3; }
svg polyline.calibrated { stroke: var(--calibrated); }
svg polyline.zero { stroke: var(--soft); stroke-width: 1; }
svg polyline.guide { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 2 3; }
svg polyline.limit { stroke: var(--mark); stroke-width: 1.4; stroke-dasharray: 8 4; }
svg circle.raw, svg rect.raw { fill: var(--raw); }
svg circle.calibrated, svg rect.calibrated { fill: var(--calibrated); }
svg rect.good { fill: var(--good); }
svg rect.bad { fill: var(--bad); }
svg line.raw { stroke: var(--raw); stroke-width: 1.5; }
svg line.calibrated { stroke: var(--calibrated); stroke-width: 1.5; }
svg line.mark { stroke: var(--mark); stroke-width: 1.5; }
svg path.mark { fill: var(--mark); stroke: var(--paper); stroke-width: 1.5; }
.key {
  display: flex;
  flex-wrap: wrap;
  gap: 2px 18px;
  margin: 2px 0;
  padding: 0;
  list-style: none;
  font-size: 14px;
  color: var(--soft);
}
.key li { display: flex; align-items: center; }
.key svg {
  flex: none;
  display: inline-block;
  width: 26px;
  height: 12px;
  margin-right: 6px;
  vertical-align: middle;
}

@media (max-width: 800px) {
  main, header, footer { padding-left: 14px; padding-right: 14px; }
  h1 { font-size: 23px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; }
  .tiles dd { font-size: 19px; }
  .tiles dd small { white-space: normal; }
  /* A wide table becomes one card per row; roles in the markup keep it a table for readers. */
  table.stack thead {
    position: absolute;
    width: 1px;
    height: 1px;
    overflow: hidden;
    clip-path: inset(50%);
  }
  table.stack, table.stack tbody, table.stack tr, table.stack th, table.stack td { display: block; }
  table.stack tr { background: var(--card); border-radius: 8px; padding: 8px 12px; margin: 8px 0; }
  table.stack tbody tr {
    display: grid;
    grid-template-columns: repeat(auto-fill, minmax(96px, 1fr));
    gap: 8px;
  }
  table.stack th, table.stack td { border: 0; padding: 0; text-align: left; }
  table.stack th { grid-column: 1 / -1; }
  table.stack td::before {
    content: attr(data-label);
    display: block;
    color: var(--soft);
    font-size: 12px;
  }
  table.stack td small { font-size: 11px; white-space: normal; }
  .answers { padding-left: 1.3em; }
  .answers dl { grid-template-columns: minmax(0, 1fr); }
  .answers dt { font-size: 13px; margin-top: 4px; }
}
@media print {
  details { display: none; }
  h2 { break-after: avoid; }
  figure, .answers li { break-inside: avoid; }
}
"""
