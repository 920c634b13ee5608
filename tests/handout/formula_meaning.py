"""The meaning of a formula as a line of text, read from MathML and from Typst's own tree.

Both readers write a fraction as `frac(a,b)`, an index as `_{i}`, a power as `^{2}`, an accent as
`hat(x)` and a table as `[a⇥b↵c⇥d]`. Fonts
and sizes are not part of it.
"""

import json
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import typst

ROW, CELL = "↵", "⇥"  # between the rows and the cells of a table
MATHML = "{http://www.w3.org/1998/Math/MathML}"
INVISIBLE = "\u200b\ufe0e\u2061\u2062\u2063"
# Characters that mean the same, and look the same in a formula.
SAME = str.maketrans("∣∥′−∗⋆·∙•⟨⟩〈〉ˆ∼˜∖⧵∆⋄◇⟂⁄ϵϕ", "|‖'-*★⋅⋅⋅<><>^~~\\\\Δ⬦⬦⊥/εφ", INVISIBLE)
ACCENTS = {
    **{"̂": "hat", "^": "hat", "ˆ": "hat", "̃": "tilde", "~": "tilde", "˜": "tilde", "∼": "tilde"},
    **{"̄": "bar", "¯": "bar", "‾": "bar", "̅": "bar", "_": "underline", "̲": "underline"},
    **{"̇": "dot", "˙": "dot", "̈": "ddot", "¨": "ddot", "⃗": "vec", "→": "vec", "̌": "check"},
    **{"ˇ": "check", "̆": "breve", "˘": "breve", "́": "acute", "´": "acute", "̀": "grave"},
    **{"`": "grave", "̊": "ring", "˚": "ring", "⃛": "dddot", "⃖": "vecleft", "←": "vecleft"},
    **{"⏞": "overbrace", "⏟": "underbrace", "⎴": "overbracket", "⎵": "underbracket"},
    **{"⏜": "overparen", "⏝": "underparen", "⃡": "both", "↔": "both"},
}


def text_of(text: str) -> str:
    """Characters without their fonts, spaces and spellings."""
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text.translate(SAME))).translate(SAME)


def of_mathml(markup: str) -> str:
    """The meaning of a formula in MathML."""
    return _mathml(ElementTree.fromstring(markup))


def _mathml(node: ElementTree.Element) -> str:
    kind = node.tag.removeprefix(MATHML)
    parts = [_mathml(child) for child in node if not child.tag.endswith("annotation")]
    match kind:
        case "mi" | "mn" | "mo" | "mtext" | "ms":
            return text_of(node.text or "")
        case "mspace":
            return _space(node.get("width", "0em"))
        case "mfrac":
            name = "stack" if node.get("linethickness") == "0" else "frac"
            return f"{name}({','.join(parts)})"
        case "msqrt":
            return f"root({''.join(parts)})"
        case "mroot":
            return f"root({parts[0]},{parts[1]})"
        case "msub" | "munder" | "msup" | "mover":
            if parts[1] == "" and kind != "mover" and kind != "munder":
                return parts[0]
            if name := _accent(node[1]):
                return f"{name}({parts[0]})"
            sides = ("", parts[1]) if kind in ("msub", "munder") else (parts[1], "")
            return _attached(parts[0], *sides)
        case "msubsup" | "munderover":
            return _attached(parts[0], parts[2], parts[1])
        case "mtable":
            return f"[{ROW.join(parts)}]"
        case "mtr":
            return CELL.join(parts)
        case "menclose":
            notation = node.get("notation", "")
            return f"{'box' if notation == 'box' else 'cancel'}({''.join(parts)})"
        case "mphantom":
            return f"hide({''.join(parts)})"
    return "".join(parts)


def _accent(node: ElementTree.Element) -> str:
    mark = (node.text or "").strip()
    return ACCENTS.get(mark, "") if node.get("accent") == "true" or (mark in "¯‾_" and mark) else ""


def _space(width: str) -> str:
    """A space, to a tenth of the size of the font."""
    number = float(width.removesuffix("em").removesuffix("pt"))
    return f"␣{number:.1f}" if number else ""


def _attached(base: str, above: str, below: str) -> str:
    """A base with what is at its corners; primes stay beside it."""
    if above and not above.strip("'"):
        base, above = base + above, ""
    return base + (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "")


def of_typst(markups: Sequence[str], style: Path) -> list[str]:
    """The meaning of each formula in Typst, in one compilation."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "handout.typ").write_bytes(style.read_bytes())
        source = '#import "handout.typ" as sheet\n' + "\n\n".join(
            f"#metadata({number})\n{markup}" for number, markup in enumerate(markups)
        )
        path = Path(folder, "main.typ")
        path.write_text(source, "utf-8")
        found = json.loads(typst.query(path, "selector(metadata).or(math.equation)", root=folder))
    meanings, number = [""] * len(markups), -1
    for element in found:
        if element["func"] == "metadata":
            number = element["value"]
        elif not meanings[number]:  # the first of a formula, since a box holds a second one
            meanings[number] = _typst(element["body"])
    return meanings


def _typst(node: Any) -> str:
    if node is None:
        return ""
    if isinstance(node, list):
        return "".join(map(_typst, node))
    if isinstance(node, str):
        return text_of(node)
    kind = node["func"]
    match kind:
        case "symbol" | "text":
            space = _space("0.33em") if re.search(r"\S +$", node["text"]) else ""
            return text_of(node["text"]) + space
        case "space" | "linebreak" | "align-point":
            return {"linebreak": ROW, "align-point": CELL}.get(kind, "")
        case "h":
            return _space(node["amount"])
        case "frac":
            return f"frac({_typst(node['num'])},{_typst(node['denom'])})"
        case "binom":
            lower = "".join(map(_typst, node["lower"]))
            return f"(stack({_typst(node['upper'])},{lower}))"
        case "root":
            index = f",{_typst(node['index'])}" if node.get("index") else ""
            return f"root({_typst(node['radicand'])}{index})"
        case "accent":
            mark = node["accent"] if isinstance(node["accent"], str) else _typst(node["accent"])
            return f"{ACCENTS.get(mark, '?' + mark)}({_typst(node['base'])})"
        case "attach":
            return _attached(
                _typst(node["base"]),
                _typst(node.get("t") or node.get("tr")),
                _typst(node.get("b") or node.get("br")),
            )
        case "primes":
            return "'" * node["count"]
        case "mat":
            rows = ROW.join(CELL.join(map(_typst, row)) for row in node["rows"])
            left, right = _delimiters(node.get("delim", "("))
            return f"{left}[{rows}]{right}"
        case "cases":
            left, _ = _delimiters(node.get("delim", "{"))
            return f"{left}[{ROW.join(map(_typst, node['children']))}]"
        case "vec":
            left, right = _delimiters(node.get("delim", "("))
            return f"{left}[{ROW.join(map(_typst, node['children']))}]{right}"
        case "overline" | "underline":
            return f"{'bar' if kind == 'overline' else kind}({_typst(node['body'])})"
        case (
            "overbrace" | "underbrace" | "overbracket" | "underbracket" | "overparen" | "underparen"
        ):
            body, note = f"{kind}({_typst(node['body'])})", _typst(node.get("annotation"))
            return _attached(body, note, "") if kind[0] == "o" else _attached(body, "", note)
        case "cancel" | "hide" | "box":
            return f"{kind}({_typst(node.get('body'))})"
        case "op":
            return _typst(node["text"])
        case "sequence":
            return "".join(map(_typst, node["children"]))
    for inner in ("body", "child", "base"):
        if inner in node:
            return _typst(node[inner])
    return f"?{kind}"


def _delimiters(delim: Any) -> tuple[str, str]:
    closing = {"(": ")", "[": "]", "{": "}", "|": "|", "‖": "‖"}
    if isinstance(delim, list):
        return tuple("" if part in (None, "none") else text_of(part) for part in delim)  # type: ignore[return-value]
    left = text_of(delim or "")
    return left, closing.get(left, left)


def with_tables(meaning: str) -> str:
    """A formula whose rows Typst sets as lines is the table that MathML has."""
    has_rows = re.search(f"[{ROW}{CELL}]", re.sub(r"\[[^\[\]]*\]", "", meaning))
    return f"[{meaning}]" if has_rows else meaning
