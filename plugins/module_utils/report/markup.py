# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Pieces of HTML that report and change-request document share: escaping, tables, one style sheet, no script."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d0d7de;--card:#f6f8fa;--link:#0550ae;
--ok:#116329;--okbg:#dafbe1;--warn:#7a4a00;--warnbg:#fff4d6;--bad:#a40e26;--badbg:#ffe3e6;--none:#57606a;--nonebg:#eaeef2}
@media screen and (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--soft:#9da7b3;--line:#3d444d;--card:#161b22;--link:#79c0ff;
--ok:#7ee787;--okbg:#12261a;--warn:#f2cc60;--warnbg:#2d2410;--bad:#ff9492;--badbg:#31151a;--none:#9da7b3;--nonebg:#21262d}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans",sans-serif}
main,header,footer,nav.sites{max-width:76rem;margin:0 auto;padding:0 1.25rem}
h1{font-size:1.7rem;line-height:1.25;margin:1.5rem 0 .25rem}
h2{font-size:1.3rem;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.5rem 0 .5rem}
p{margin:.5rem 0;max-width:72ch}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:2px}
.skip{position:absolute;left:-999rem}
.skip:focus{left:1rem;top:1rem;background:var(--bg);padding:.5rem 1rem;z-index:2}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
td details{margin:0}td ul{margin:.25rem 0;padding-left:1.1rem}
.soft{color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,10rem),1fr));gap:.75rem;padding:0;margin:1rem 0;list-style:none}
.cards li{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.75rem 1rem}
.cards b{display:block;font-size:1.35rem;line-height:1.3;overflow-wrap:anywhere}
.tag{display:inline-block;border-radius:1rem;padding:0 .6rem;font-size:.85rem;font-weight:600;white-space:nowrap;border:1px solid currentColor}
.ok{color:var(--ok);background:var(--okbg)}.warn{color:var(--warn);background:var(--warnbg)}
.bad{color:var(--bad);background:var(--badbg)}.none{color:var(--none);background:var(--nonebg)}
.scroll{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;color:var(--soft);padding:.25rem 0}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid var(--line)}
thead th{background:var(--card);white-space:nowrap}
tbody th{font-weight:600}
td,tbody th{overflow-wrap:anywhere}
tbody th{min-width:12rem}
tbody td:nth-of-type(1){min-width:9rem}
.whole{white-space:nowrap}
ul.toc{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;padding:0;margin:1rem 0;list-style:none}
ol.warnings{list-style:none;padding:0;margin:0}
ol.warnings li{border:1px solid var(--line);border-left:.4rem solid var(--none);border-radius:.4rem;padding:.5rem .9rem;margin:.5rem 0;
background:var(--card);overflow-wrap:anywhere}
ol.warnings li.u1{border-left-color:var(--bad)}ol.warnings li.u2{border-left-color:var(--warn)}ol.warnings li.u3{border-left-color:var(--link)}
details{margin:.5rem 0}summary{cursor:pointer;font-weight:600}
code{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,monospace;font-size:.9em}
figure{margin:0}
svg.map{width:100%;height:auto;border:1px solid var(--line);border-radius:.5rem;background:var(--card)}
svg.map text{font:13px system-ui,"Noto Sans",sans-serif;fill:var(--fg)}
svg.map .zone{fill:var(--bg);stroke:var(--line)}svg.map .head{font-weight:700;font-size:14px}svg.map .small{font-size:11.5px;fill:var(--soft)}
svg.map .host{fill:var(--nonebg);stroke:var(--none)}
svg.map .edge{fill:none;stroke-width:2}
svg.map .e-ok{stroke:var(--ok)}svg.map .e-bad{stroke:var(--bad);stroke-dasharray:7 4;stroke-width:3}
svg.map .e-warn{stroke:var(--warn);stroke-dasharray:2 4}svg.map .e-none{stroke:var(--none);stroke-dasharray:1 5}
svg.map .t-ok{fill:var(--ok);font-weight:600}svg.map .t-bad{fill:var(--bad);font-weight:600}svg.map .t-warn{fill:var(--warn);font-weight:600}
svg.map .t-none{fill:var(--soft)}
@media screen and (max-width:44rem){table,tbody,tr,tbody th,td{display:block;width:auto}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
tr{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0;padding:.3rem .2rem}
th,td{border:0;padding:.15rem .6rem}td::before{content:attr(data-column) ": ";color:var(--soft)}td:empty{display:none}
figure{overflow-x:auto}svg.map{min-width:52rem}}
footer{color:var(--soft);font-size:.9rem;margin:3rem auto 2rem}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--card:#fff;--line:#999}body{font-size:10.5pt}nav.sites,.skip{display:none}
.scroll{overflow:visible}h2{break-after:avoid}tr,li,figure{break-inside:avoid}
details>*{display:block}details::details-content{content-visibility:visible;display:block}a{color:inherit;text-decoration:none}}
@media (prefers-contrast:more){:root{--line:currentColor;--soft:var(--fg)}}
"""


def esc(value: Any) -> str:
    """Text for HTML, in elements and in attributes."""
    return html.escape("" if value is None else str(value), quote=True)


def slug(text: str) -> str:
    """An id out of a text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def tag(text: str, kind: str) -> str:
    """A small label whose word says what its colour says."""
    return f'<span class="tag {kind}">{esc(text)}</span>'


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "", *, titled: bool = False) -> str:
    """A table out of ready HTML cells; the first cell of a row names it. C(titled): a heading above shows the caption already."""
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f'<td data-column="{esc(name)}">{cell}</td>' for name, cell in zip_longest(columns[1:], row[1:], fillvalue=""))
        + "</tr>"
        for row in rows
    )
    if not body:
        return f"<p>{esc(empty or 'None.')}</p>"
    head = "".join(f'<th scope="col">{esc(name)}</th>' for name in columns)
    hidden = ' class="hidden"' if titled else ""
    # Wide tables scroll, and what scrolls must be reachable by keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(caption)}"><table><caption{hidden}>{esc(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def page(title: str, body: str) -> str:
    """A whole document that loads nothing and runs nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{esc(title)}</title><style>{STYLE}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the content</a>{body}</body></html>\n'
    )
