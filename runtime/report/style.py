"""How the page of a profile looks, beside what all pages share."""

COLOURS = """
:root { --c0: #2f6fd0; --c1: #d9631e; --c2: #1b9168; --c3: #b5559d; --c4: #ab7f00; --c5: #2f93b8;
  --c6: #7c6fbf; --good: #157347; --bad: #b3261e; --warn: #8a5a00; --warnback: #fff6e0 }
@media (prefers-color-scheme: dark) {
  :root { --c0: #6aa5ff; --c1: #ff9a5c; --c2: #4fd1a0; --c3: #e28bce; --c4: #e3bd4d; --c5: #6fd0ee;
    --c6: #a99cf0; --good: #6fdc9f; --bad: #ff8a80; --warn: #f2c25b; --warnback: #2c2410 }
}
"""
PARTS = """
html { scroll-behavior: smooth; scroll-padding-top: .5rem }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto } }
a { color: var(--accent) }
.lead { color: var(--muted); margin: .25rem 0; max-width: none; overflow-wrap: anywhere }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: .6rem 0;
  margin: 1rem 0; border: solid var(--line); border-width: 1px 0; font-size: .875rem }
nav a { text-decoration: none }
nav a:hover { text-decoration: underline }
.note { border-left: 4px solid var(--warn); background: var(--warnback); padding: .5rem .75rem;
  margin: .75rem 0; max-width: none; border-radius: 0 .375rem .375rem 0; overflow-wrap: anywhere }
.note.bad { border-color: var(--bad) }
.note ul { margin: .25rem 0; padding-left: 1.25rem }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem;
  margin: 1rem 0; padding: 0; list-style: none }
.cards li { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem }
.cards .what, .cards .more { display: block; font-size: .8rem; color: var(--muted) }
.cards .value { font-size: 1.6rem; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums }
.cards .unit { font-size: .85rem; color: var(--muted) }
tbody th { font-weight: 400; white-space: normal; overflow-wrap: anywhere }
.wide tbody th { min-width: 5rem; max-width: 16rem }
.wide thead th:first-child, .wide tbody th { position: sticky; left: 0 }
.wide tbody th { background: var(--back) }
.headline tbody th { min-width: 7rem }
@media (max-width: 40rem) { .wide tbody th { max-width: 8.5rem } }
td.text { text-align: left; white-space: normal; min-width: 12rem }
.earlier td.text { min-width: 8rem }
.earlier thead th:nth-child(2) { text-align: left }
.earlier .of { display: block; color: var(--muted) }
.sd, .muted { color: var(--muted) }
.good { color: var(--good); font-weight: 600 }
.bad { color: var(--bad) }
td.bad { font-weight: 600 }
.warn { color: var(--warn) }
figure { margin: 1rem 0 1.5rem }
figcaption { max-width: 46rem; margin-bottom: .4rem }
.bars, .legend { list-style: none; padding: 0; margin: 0; font-size: .875rem }
.bars li { display: flex; flex-wrap: wrap; gap: .1rem .75rem; align-items: center;
  padding: .3rem 0; font-variant-numeric: tabular-nums }
.bars .name { overflow-wrap: anywhere; min-width: 0 }
.bars .shown { margin-left: auto; text-align: right; min-width: 0; overflow-wrap: anywhere }
.bars .track { order: 3; flex: 0 0 100%; position: relative; display: block; height: .9rem;
  background: var(--soft); border-radius: 2px }
.bars .bar { position: absolute; top: 0; bottom: 0; border-radius: 2px }
.bars .mark { position: absolute; top: -2px; bottom: -2px; width: 2px; margin-left: -1px;
  background: var(--ink) }
.bars .inner .name { padding-left: 1rem; color: var(--muted) }
.bars .inner .track { height: .5rem }
@media (min-width: 40rem) {
  .bars li { display: grid; grid-template-columns: 12rem minmax(0, 1fr) 14rem;
    padding: .15rem 0 }
  .bars .track { order: 0 }
  .bars .shown { margin: 0; text-align: left }
}
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .25rem 0 }
.legend li { display: flex; align-items: center; gap: .4rem; overflow-wrap: anywhere; min-width: 0 }
.key { flex: none; width: .8rem; height: .8rem; border-radius: 2px }
.key.line { width: 2px; background: var(--ink) }
.plot { display: grid; grid-template-columns: 3rem minmax(0, 1fr); max-width: 46rem;
  font-size: .78rem; color: var(--muted); font-variant-numeric: tabular-nums }
.plot .label { grid-column: 1 / -1; padding-bottom: .4rem }
.plot .label.below { text-align: center; padding: 0 }
.plot .area { height: 15rem; border: solid var(--line); border-width: 0 0 1px 1px }
.plot svg { width: 100%; height: 100%; max-width: none; overflow: visible }
.plot path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round;
  stroke-linecap: round }
.plot .grid { stroke: var(--line); stroke-width: 1; stroke-dasharray: 2 3 }
.plot .faint { stroke-width: 1; opacity: .3 }
.plot .bold { stroke-width: 2.25 }
.plot .dots { stroke-width: 4; opacity: .4 }
.plot .y, .plot .x { position: relative }
.plot .x { grid-column: 2; height: 1.4rem; margin-right: 1rem; width: 100% }
.plot .y span { position: absolute; right: .4rem; transform: translateY(50%) }
.plot .x span { position: absolute; top: .2rem; transform: translateX(-50%) }
.plot .area, .plot .x { max-width: calc(100% - 1.5rem) }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .75rem 0;
  padding: 0 .8rem }
details[open] { padding-bottom: .5rem }
details > :last-child { margin-bottom: .25rem }
summary + figure { margin-top: 0 }
summary { cursor: pointer; padding: .6rem 0; font-weight: 600; overflow-wrap: anywhere }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
.terms { columns: 24rem 2; column-gap: 2rem; font-size: .875rem; margin: 0 }
.terms div { break-inside: avoid; padding-bottom: .5rem }
.terms dt { font-weight: 600; overflow-wrap: anywhere }
.terms dd { margin: 0; color: var(--muted) }
@media print { nav { display: none } details, figure { break-inside: avoid } }
"""
PROFILE_STYLE = COLOURS + PARTS
