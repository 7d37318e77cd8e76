"""Style of the report, written into the page so that it needs no other file.

Colours are from Okabe and Ito's set, which stays apart for colour-blind eyes; shapes differ as well.
"""

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf8;--card:#fff;--ink:#1c2128;--soft:#5a6472;--line:#dfe2e6;
--grid:#eceef0;--kept:#b4bcc6;--pooled:#0072b2;--drops:#c65500;--base:#4a525c;--winner:#00815e;
--hot:#fff3c9;--over:#8a939e1f}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1b1f25;--ink:#e9ecf0;--soft:#a3adb9;
--line:#343b45;--grid:#272d35;--kept:#59636f;--pooled:#56b4e9;--drops:#f0a04b;--base:#ccd3db;
--winner:#3ed3a3;--hot:#3a3520;--over:#8a939e1f}}
*{box-sizing:border-box}
html{scroll-behavior:auto}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main,footer{max-width:1120px;margin:0 auto;padding:0 20px}
header{padding:44px 0 8px}
h1{font-size:clamp(1.7rem,4.6vw,2.9rem);line-height:1.12;letter-spacing:-.02em;margin:0 0 12px;
text-wrap:balance;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:0 0 14px}
p{margin:0 0 10px}
.detail{font-size:1.06rem;max-width:72ch;overflow-wrap:anywhere}
.detail strong,.gain strong{white-space:nowrap}
.gain{border-left:4px solid var(--winner);padding:6px 0 6px 14px;margin:18px 0 0;max-width:84ch}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px;margin:22px 0}
a{color:inherit;text-decoration-color:var(--soft);text-underline-offset:3px}
a:focus-visible,:is(.scroll,pre,button,summary):focus-visible{outline:2px solid var(--pooled);outline-offset:2px}
small,.note,.empty,figcaption{color:var(--soft)}
small{font-size:.85em}
.note,figcaption{font-size:.88rem;margin:12px 0 0}
figcaption:empty{display:none}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;font-weight:400;padding:7px 14px 7px 0;vertical-align:top}
thead th{color:var(--soft);font-size:.82rem;vertical-align:bottom}
tbody tr{border-top:1px solid var(--grid)}
.num{text-align:right;white-space:nowrap}
thead .num{white-space:normal}
.scroll{overflow-x:auto;position:relative}
.baselines th[scope=row]{font-weight:600}
.baselines td{white-space:nowrap}
.baselines td small{white-space:normal;overflow-wrap:anywhere}
.baselines .wide{white-space:normal;min-width:110px}
.none td,.none th{color:var(--soft)}
.badge{display:inline-block;font-size:.74rem;line-height:1.45;padding:0 7px;margin:0 4px 2px 0;
border:1px solid var(--soft);border-radius:99px;white-space:nowrap;color:var(--soft)}
.badge.winner{background:var(--winner);border-color:var(--winner);color:var(--card);font-weight:600}
.badge.front{border-color:var(--winner);color:var(--winner)}
.badge.drops{border-color:var(--drops);color:var(--drops)}
.badge.base{border-color:var(--base);color:var(--base)}
.badge.over{border-style:dashed}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 16px;padding:0;font-size:.88rem}
.legend li{display:flex;align-items:center;gap:7px}
.legend .names{color:var(--soft);flex-basis:100%;display:block;overflow-wrap:anywhere}
.key{width:18px;height:18px;flex:none}
.key.stroke{height:0;width:24px;border-top:2.5px solid var(--winner)}
.key.stroke.plain{border-top:2.5px dashed var(--drops)}
.key.area{height:14px;background:var(--winner);opacity:.22;border-radius:2px}
.key.dots{height:0;width:24px;border-top:2px dotted var(--soft)}
.key.box{width:14px;height:14px;background:var(--kept);border-radius:2px}
.key.box.out{background:var(--drops)}
.key.dashes{width:0;height:18px;border-left:2px dashed var(--ink);margin:0 3px}
figure{margin:0}
.axis-title{color:var(--soft);font-size:.82rem;margin:0}
.axis-title.below{text-align:right;margin:32px 16px 0 0}
.plot{margin:32px 16px 0 46px;height:clamp(260px,42vw,400px)}
.plot.low{height:clamp(210px,26vw,270px);margin-top:22px}
.chart{display:block;width:100%;height:100%;overflow:visible}
.chart text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}
.chart .y{text-anchor:end}
.chart .x{text-anchor:middle}
.chart .callout,.chart .budget-label{fill:var(--ink);font-weight:600;paint-order:stroke;stroke:var(--card);
stroke-width:4px;stroke-linejoin:round;pointer-events:none}
.grid{stroke:var(--grid)}
.axis{stroke:var(--soft)}
.over{fill:var(--over);pointer-events:none}
.badge.over{fill:none}
.budget{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
line.front,line.plain{stroke:var(--winner);stroke-width:2.5;stroke-linecap:round}
line.plain{stroke:var(--drops);stroke-width:2;stroke-dasharray:2 6}
.gap{fill:var(--winner);fill-opacity:.15;shape-rendering:crispEdges}
.floor{stroke:var(--soft);stroke-dasharray:2 4}
.promise{stroke:var(--soft);stroke-width:2;stroke-dasharray:1 5;stroke-linecap:round}
.chart .floor-label{paint-order:stroke;stroke:var(--card);stroke-width:4px}
.loss{fill:var(--kept)}.loss.out{fill:var(--drops)}.loss:hover{fill:var(--pooled)}
.chart :is(.value,.stage){text-anchor:middle}
.chart .value{fill:var(--ink);font-size:11px}
.cut{stroke:var(--card);stroke-width:4}
.bracket{stroke:var(--line)}
.losses+*,.plot:has(.losses){margin-bottom:52px}
.pooled{--hue:var(--pooled)}.drops{--hue:var(--drops)}.base{--hue:var(--base)}
.dot.winner,.key.winner{--hue:var(--winner)}
.mark{fill:var(--hue);fill-opacity:.3;stroke:var(--hue);stroke-width:1.4}
.solid .mark{fill-opacity:1;stroke:var(--card);stroke-width:1.2}
.below .mark{fill:var(--card);fill-opacity:1;stroke:var(--hue)}
.stopped .mark{fill:none;stroke-width:1.2;opacity:.5}
.halo{fill:transparent;stroke:none}
.dot{outline:none;cursor:pointer}
.dot:is(:hover,:focus-visible,:target,.hot) .halo{fill:var(--hue);fill-opacity:.18;stroke:var(--ink);
stroke-width:1.6}
#readout{margin:18px 0 0;padding:12px 14px;border-radius:8px;background:var(--paper);min-height:74px}
#readout .strip{min-width:0}
#readout p{font-size:.88rem;margin:0 0 8px;overflow-wrap:anywhere}
.strip{display:flex;gap:5px;min-width:calc(var(--blocks)*9px);max-width:calc(var(--blocks)*56px)}
.strip>span{flex:var(--n) 1 0;display:flex;min-width:0}
.strip i{flex:1 1 0;min-width:0;height:22px;margin:0 1px}
.k,.d,.p{border-radius:3px;forced-color-adjust:none}
.k{background:var(--kept)}
.d{background:linear-gradient(var(--drops),var(--drops)) center/100% 3px no-repeat}
.k.stays{background:none;box-shadow:inset 0 0 0 1.5px var(--kept)}
.p{background:radial-gradient(circle at center,var(--card) 0 2.8px,transparent 3.4px) no-repeat,var(--pooled)}
.cell{display:inline-block;width:18px;height:20px}
.axis-strip>span{display:block;font-size:.78rem;line-height:1.35}
.axis-strip b{display:block;font-weight:400;font-size:.74rem;white-space:nowrap;
overflow:hidden;text-overflow:ellipsis;border-bottom:1px solid var(--line);margin:0 1px}
.axis-strip .numbers{display:flex}
.axis-strip i{height:auto;font-style:normal;font-size:.68rem;text-align:center;white-space:nowrap}
.strips th,.strips td{padding:4px 14px 4px 0;vertical-align:middle}
.strips thead th{vertical-align:bottom}
.strips thead .num{min-width:6.6em}
.strips .blocks{width:60%}
.strips .marks{width:22%;font-size:.85rem}
.row.hot,.row:target,.baselines tr.hot{background:var(--hot)}
.row.best :is(th,.acc){font-weight:600}
.row:is(.failed,.stopped){color:var(--soft)}
.row:is(.failed,.stopped) .strip{opacity:.55}
.settings{display:block}
.reason{overflow-wrap:anywhere}
.costs{max-width:900px}
.costs th,.costs td{padding-top:4px;padding-bottom:4px}
.bar{width:34%;min-width:60px}
.bar i{display:block;height:10px;margin-top:7px;background:var(--kept);border-radius:2px;min-width:1px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:22px;margin:22px 0}
.pair section{margin:0;min-width:0}
.speed{margin-bottom:14px}
.shares{list-style:none;margin:0;padding:0}
.shares li{display:grid;grid-template-columns:minmax(0,11fr) minmax(0,9fr) 6.5em;gap:12px;align-items:center;
padding:3px 0;font-variant-numeric:tabular-nums}
.shares .of{overflow-wrap:anywhere}
.shares .share{text-align:right;white-space:nowrap}
.track i{display:block;height:12px;border-radius:2px;background:var(--pooled);min-width:2px}
summary{cursor:pointer;color:var(--soft);padding:6px 0}
footer{padding-bottom:56px;padding-top:8px;color:var(--soft);font-size:.92rem}
footer h2{color:var(--ink)}
.command{display:grid;grid-template-columns:1fr auto;gap:4px 12px;align-items:end;margin:0 0 14px}
.command h3{font-size:.9rem;font-weight:400;margin:0}
.command button{grid-area:1/2;font:inherit;font-size:.82rem;padding:2px 12px;border:1px solid var(--line);
border-radius:6px;background:var(--card);color:var(--ink);cursor:pointer;min-width:6em}
.command button:hover{border-color:var(--soft)}
.command pre{grid-column:1/-1;margin:0}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px;margin:0 0 16px;
white-space:pre-wrap;overflow-wrap:anywhere;color:var(--ink);
font:.88rem/1.5 ui-monospace,Menlo,Consolas,monospace}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:10px 20px;margin:0 0 18px}
dl div{min-width:0}
dt{font-size:.8rem}
dd{margin:0;color:var(--ink);overflow-wrap:anywhere}
@media (max-width:720px){
main,footer{padding:0 12px}
header{padding-top:26px}
section{padding:14px 12px}
.baselines thead,.strips thead th:not(.blocks){display:none}
.baselines tr{display:block;padding:8px 0}
.baselines :is(th,td){display:block;padding:2px 0}
.baselines td[data-label]{display:flex;justify-content:space-between;gap:16px;white-space:normal}
.baselines td[data-label]::before{content:attr(data-label);color:var(--soft);flex:none}
.baselines td[data-label] span{text-align:right}
.strips :is(tbody,thead,tr){display:block}
.strips .row{display:flex;flex-wrap:wrap;align-items:baseline;gap:2px 8px;padding:8px 0}
.strips :is(.row>*,thead .blocks){padding:0;width:auto;display:block}
.strips .row .blocks{order:2;flex-basis:100%}
.strips .row .acc{order:1;margin-left:auto}
.strips.shared .acc::after{content:" shared";font-size:.78rem;font-weight:400}
.costs{font-size:.85rem}
.costs .bar{display:none}
.costs thead td{display:none}
.strips .row.stopped .acc{font-size:.8rem}
.strips .row .own{order:1;font-size:.78rem}
.strips .row .own:not(:empty)::after{content:" trained"}
.strips .row .own:empty{display:none}
.strips .row :is(.macs,.params){font-size:.78rem}
.strips .row .macs::after{content:" MACs"}
.strips .row .params::after{content:" params"}
.strips .row .marks{order:3;flex-basis:100%}
.strips .row .marks:empty{display:none}
.axis-strip b{font-size:0}
.axis-strip b::after{content:attr(data-short);font-size:.74rem}
.strip{gap:3px;min-width:calc(var(--blocks)*6px);max-width:none}
.strip i{margin:0 .5px}
.many .value:not(.far){display:none}
.shares li{grid-template-columns:minmax(0,1fr) minmax(60px,30%) 6em;gap:8px;font-size:.9rem}
}
@media print{section{break-inside:avoid}body{background:none}}
"""
