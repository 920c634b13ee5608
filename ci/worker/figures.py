"""Chinese in figures: a font for what the figure's own fonts lack, and no empty boxes.

matplotlib looks for a character in the families of a text. The lesson chooses them, and a style may
choose others; therefore the font comes last in each search, and is no setting. It is not the font
of the PDF, because matplotlib draws only the thinnest weight of a variable font.
"""

import contextlib
import importlib.util
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

PACKAGE, FILE = "pylopdf_fonts_zh_cn", "NotoSansSC-Regular.otf"
# Families that lessons name; the font stands in for those that are not installed.
STANDS_IN_FOR = (
    *("SimHei", "SimSun", "Microsoft YaHei", "PingFang SC", "Heiti SC", "Heiti TC", "STHeiti"),
    *("Arial Unicode MS", "Hiragino Sans GB", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Noto Sans CJK SC", "Source Han Sans SC", "Source Han Sans CN"),
)


def prepare() -> None:
    """Give matplotlib the font, if it is installed and was not given the font before a fork."""
    with contextlib.suppress(ModuleNotFoundError):
        from matplotlib import _mathtext, _text_helpers, font_manager

        if _mathtext.UnicodeFonts._get_glyph.__module__ != __name__:
            _change_search(font_manager)
            _change_formulas(_mathtext)
            _text_helpers.warn_on_missing_glyph = _refuse  # it would draw an empty box


def _font() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).with_name(FILE) if spec and spec.origin else None


def _change_search(module: Any) -> None:
    """Append the font to each search of matplotlib's font manager."""
    if not (path := _font()):
        return
    find = module.FontManager._find_fonts_by_props
    manager = module.fontManager
    manager.addfont(path)
    entry, installed = manager.ttflist.pop(), {font.name for font in manager.ttflist}
    names = [entry.name, *(name for name in STANDS_IN_FOR if name not in installed)]
    weights = (400, 700)  # it has one; matplotlib logs that a weight is missing
    manager.ttflist += [replace(entry, name=n, weight=w) for n in names for w in weights]

    def find_with_font(self: Any, *arguments: Any, **options: Any) -> list[Any]:
        found = find(self, *arguments, **options)
        return [*found, *({str(path)} - {*map(str, found)})]

    module.FontManager._find_fonts_by_props = find_with_font


def _change_formulas(module: Any) -> None:
    """Let the text around a formula, and the formula itself, have characters of the font."""
    get_glyph = module.UnicodeFonts._get_glyph

    def get_glyph_with_font(self: Any, name: str, kind: str, sign: str) -> tuple[Any, int, bool]:
        try:
            found: tuple[Any, int, bool] = get_glyph(self, name, kind, sign)
        except MissingCharacterError:
            path = _font()
            font = module.get_font(str(path)) if path else None
            if font is None or len(sign) != 1 or not font.get_char_index(ord(sign)):
                raise
            found = font, ord(sign), False
        return found

    module.UnicodeFonts._get_glyph = get_glyph_with_font
    logging.getLogger(module.__name__).addFilter(_refuse_dummy)
    logging.getLogger("matplotlib.mathtext").addFilter(_refuse_dummy)


class MissingCharacterError(ValueError):
    """No font of a figure has a character."""


def _refuse(codepoint: int, fontnames: str = "") -> NoReturn:
    character = f"{chr(codepoint)} (U+{codepoint:04X})"
    message = f"no font of the figure has the character {character}"
    raise MissingCharacterError(f"{message}: replace it by words or a sign")


def _refuse_dummy(record: logging.LogRecord) -> bool:
    """Raise where matplotlib would put a dummy sign into a formula, and say so in its log."""
    if "dummy symbol" in record.msg and isinstance(record.args, tuple):
        _refuse(next(value for value in record.args if isinstance(value, int)))
    return True
