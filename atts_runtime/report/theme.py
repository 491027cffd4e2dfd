"""How the report looks: colours for light and dark, the style sheet, and matplotlib figures as SVG in the page.

matplotlib knows colours, not CSS variables: it draws with the light colours below, each of them unique, and
`inline_svg` puts the variables in their place. Series colours are those of Okabe and Ito (2008), which people with any
of the common colour-vision deficiencies tell apart; the dark ones are the same hues, lighter where they must be.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, FAINT = "#1f2329", "#5b636e", "#d9dde3", "#e9ecf0"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f01", "#009e73", "#d55e00"
PURPLE, SKY, GREY, OLIVE = "#b5608f", "#56b4e9", "#a3a9b1", "#8a7a00"
ON_SERIES = "#0d0f12"  # text on orange, green, sky and grey, in light and dark alike
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, OLIVE, GREY)
_DARK = {
    INK: "#e8eaed",
    MUTED: "#a9b1bb",
    GRID: "#3a414a",
    FAINT: "#2c323a",
    BLUE: "#4aa8e8",
    ORANGE: "#f0b429",
    GREEN: "#2fc496",
    RED: "#ff7a33",
    PURPLE: "#dd8fbb",
    SKY: "#8fd0f7",
    GREY: "#7d858f",
    OLIVE: "#cbbd4a",
}
_VARIABLE = {color: f"--c{place}" for place, color in enumerate(_DARK)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "atts",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.family": "DejaVu Sans",  # matplotlib's own, for its measures; the page has the last word
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
}


def wrapped(label: str) -> str:
    """A run's label as the title of a narrow panel."""
    return textwrap.fill(label, 24)


@contextmanager
def drawing() -> Iterator[None]:
    """Figures are made and saved in here."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # whatever the user's matplotlibrc says
        mpl.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the browser has the font for a foreign name
        yield


_TAG = re.compile(r"<[^>]*>")
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')


def inline_svg(figure: Figure, name: str, says: str) -> str:
    """The figure as an <svg> for the page; `name` keeps its ids apart from other figures', `says` is read aloud."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    size = re.search(r'viewBox="([^"]*)"', svg)
    assert size is not None
    width_px = round(float(size[1].split()[2]) * 1.4)  # 9 pt of the figure are 12.6 px on the page
    head = (
        f'<svg role="img" aria-label="{escape(says)}" viewBox="{size[1]}" style="max-width:{width_px}px" '
        'preserveAspectRatio="xMinYMin meet">'
    )
    svg = head + _with_short_tags(svg[svg.index(">") + 1 :], name)
    svg = svg.replace("'DejaVu Sans'", "system-ui,'DejaVu Sans',sans-serif")
    for color, variable in _VARIABLE.items():
        svg = svg.replace(color, f"var({variable})")
    return re.sub(r"\n\s*", "\n", svg)


def _with_short_tags(svg: str, name: str) -> str:
    """With ids of the figure's own, and paths without what nobody sees. What stands between tags is text, whatever it
    reads like."""
    # matplotlib's ids hash positions to the last bit, in which its layout may differ from one time to the next.
    used = dict.fromkeys(found[1] for tag in _TAG.findall(svg) for found in _REFERENCE.findall(tag))
    short = {old: f"{name}-{place}" for place, old in enumerate(used)}

    def shorter(tag: re.Match[str]) -> str:
        told = re.sub(r' id="([^"]+)"', lambda m: f' id="{short[m[1]]}"' if m[1] in short else "", tag[0])
        told = _REFERENCE.sub(lambda m: m[1] + short[m[2]], told)
        return re.sub(r' d="([^"]+)"', lambda m: f' d="{_shorter(m[1])}"', told)

    return _TAG.sub(shorter, svg)


def standalone(svg: str) -> str:
    """An `inline_svg` as a file of its own, on the page's ground, in the light or dark of whoever looks."""
    colors = "".join(line for line in style_sheet().splitlines() if ":root" in line and "print" not in line)
    spaces = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    style = f"><style>{colors}svg{{background:var(--page)}}</style>"
    return svg.replace("<svg ", spaces, 1).replace(">", style, 1) + "\n"


def _shorter(path: str) -> str:
    """A path's numbers to a tenth of a point, without spaces that are not needed."""
    rounded = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), path)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(rounded.split()))


def style_sheet() -> str:
    """CSS of the page, for screens in light and dark and for print."""
    light = "".join(f"{_VARIABLE[color]}:{color};" for color in _DARK)
    dark = "".join(f"{_VARIABLE[color]}:{shade};" for color, shade in _DARK.items())
    ink, muted, grid, faint = (f"var({_VARIABLE[color]})" for color in (INK, MUTED, GRID, FAINT))
    return f"""
:root{{color-scheme:light dark;--page:#ffffff;{light}}}
@media (prefers-color-scheme:dark){{:root{{--page:#16191d;{dark}}}}}
@media print{{:root{{--page:#ffffff;{light}}}}}
body{{margin:0 auto;padding:1.2rem 1.5rem 4rem;max-width:1180px;background:var(--page);color:{ink};
font:15px/1.5 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}}
h1{{font-size:1.6rem;margin:.4rem 0}} h2{{font-size:1.2rem;margin:2.4rem 0 .4rem;border-bottom:1px solid {grid}}}
h3{{font-size:1.02rem;margin:1.4rem 0 .3rem}} p{{max-width:62rem;margin:.4rem 0}} figure{{margin:.6rem 0}}
.note{{color:{muted};font-size:.88rem}} .wide{{overflow-x:auto}} svg{{width:100%;height:auto;display:block}}
table{{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;margin:.5rem 0}}
th,td{{padding:.2rem .7rem .2rem 0;text-align:right;vertical-align:top;border-bottom:1px solid {grid}}}
th{{font-weight:600}} th:first-child,td:first-child,.left{{text-align:left}} td.left{{overflow-wrap:anywhere}}
.word{{white-space:nowrap}}
.by-run td:first-child{{white-space:nowrap}}
.from{{color:{muted};font-size:.8rem;text-align:left;min-width:9rem}} .unknown{{color:{muted};font-style:italic}}
.lead{{font-size:1.06rem;padding:.2rem 0 .2rem 1.2rem;margin:.6rem 0;border-left:4px solid var({_VARIABLE[BLUE]})}}
.lead li{{list-style:none;margin:.15rem 0}}
.warnings{{border-left:4px solid var({_VARIABLE[RED]});background:{faint};padding:.4rem 1rem .4rem 2rem}}
.warnings li{{overflow-wrap:anywhere}} dt{{font-weight:600;margin-top:.5rem}} dd{{margin:0 0 0 1.2rem;max-width:58rem}}
code{{font-size:.9em}} summary{{cursor:pointer}}
"""
