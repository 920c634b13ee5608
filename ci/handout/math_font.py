"""The font of a page's formulas: STIX Two Math (ci/fonts), cut down to what the page has of them.

Without a font of its own a formula looks as the reader's system has it: roots without their sign,
fences that do not grow. The subset is some ten kilobytes, and goes into the page.
"""

import base64
import functools
import html
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

FONT = Path(__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"

# Browsers draw a variable of one letter with the italic letter of mathematics.
ITALIC = {
    unicodedata.normalize("NFKC", chr(code)): chr(code)
    for code in (*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C), 0x210E)
}

# Drawn though no text has it: the sign of a root, the minus that a hyphen becomes, and bars.
DRAWN = "√−‾¯|‖"


def font_url(markup: Iterable[str]) -> str:
    """The address (`data:font/woff2;…`) of a font for the formulas in `markup`; "" for none."""
    formulas = [f for text in markup for f in re.findall(r"(?s)<math\b.*?</math>", text)]
    spoken = re.sub(r"(?s)<annotation\b.*?</annotation>|<[^>]*>", "", "".join(formulas))
    characters = frozenset(html.unescape(spoken)) - frozenset("\n\t ")
    return _address(characters) if formulas else ""


@functools.cache
def _address(characters: frozenset[str]) -> str:
    from fontTools import subset  # half a second, for those alone who have formulas

    options = subset.Options()
    options.flavor = "woff2"
    options.hinting = False
    options.layout_features = []
    options.name_IDs = [0, 13, 14]  # its copyright and licence go with it
    options.drop_tables += ["DSIG"]
    wanted = characters | {ITALIC[c] for c in characters & ITALIC.keys()} | set(DRAWN)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=map(ord, wanted))
    file = io.BytesIO()
    with subset.load_font(str(FONT), options) as font:
        subsetter.subset(font)
        subset.save_font(font, file, options)
    return f"data:font/woff2;base64,{base64.b64encode(file.getvalue()).decode()}"
