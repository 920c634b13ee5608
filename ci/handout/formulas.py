"""TeX that pandoc would set with another meaning in PDF than in HTML: rewritten so that both mean
the same, or refused by name. `tests/handout/test_formulas.py` compares the meanings."""

import re

SIGN = re.compile(r"\\(?:[A-Za-z]+\*?|.)", re.DOTALL)  # a command, or an escaped character
SPACES = {r"\;": r"\:", r"\enspace": r"\:\:", r"\thinspace": r"\,", r"\!": "", r"\negthinspace": ""}
OTHER_NAMES = {r"\|": r"\Vert", r"\cfrac": r"\frac", r"\tbinom": r"\binom", r"\dbinom": r"\binom"}
WITHOUT_MEANING = {r"\nonumber": "", r"\notag": "", r"\displaystyle": "", r"\textstyle": ""}
REPLACED = SPACES | OTHER_NAMES | WITHOUT_MEANING

LABEL = re.compile(r"\\label\{[^{}]*\}")
TAG = re.compile(r"\\tag(\*?)\{([^{}]*)\}")
MATRIX = re.compile(r"\\(begin|end)\{(vmatrix|Vmatrix|smallmatrix)\}")
EDGES = {
    "vmatrix": (r"\left|\begin{matrix}", r"\end{matrix}\right|"),
    "Vmatrix": (r"\left\|\begin{matrix}", r"\end{matrix}\right\|"),
    "smallmatrix": (r"\begin{matrix}", r"\end{matrix}"),
}

# Tables that pandoc writes as lines of Typst, which would break the rest of the formula as well.
TABLE = re.compile(r"\\begin\{(?:matrix|array)\}(?:\{[lcr ]*\})?|\\end\{(?:matrix|array)\}")
INNER = re.compile(r"\\(begin|end)\{(?:aligned|split|gathered)\}")
WHOLE = re.compile(r"(?s)\s*\\begin\{(\w+)\}(?:(?!\\begin\{\1\}).)*\\end\{\1\}\s*")
NO_DELIMITERS = "no delimiters"  # in the first cell of a table that has none
MARKED = re.compile(rf'mat\(delim: "\{{", (?:upright\()?"{NO_DELIMITERS}"\)? ?')

# Symbols that pandoc 3.9 writes and Typst 0.15 has under other names; quoted text stays.
RENAMED = {
    "dot.circle": "dot.o",
    "minus.circle": "minus.o",
    "times.circle": "times.o",
    "dash.circle": "⊝",
    "bracket.l.double": "⟦",
    "bracket.r.double": "⟧",
    "sect": "inter",
}
# Typst sets a bar with space around it, as in x | y; TeX sets it like a letter, as in |x|.
BARS = re.compile(r'"(?:\\.|[^"\\])*"|(?<!\[)\\\||(?<!lr\()\bbar\.v\.double\b(?!\))')
TIGHT = {sign: f'class("normal", {sign})' for sign in (r"\|", "bar.v.double")}
LARGER = re.compile(
    r"(#scale\([^)]*\))\[((?:\\.|[^\]\\])*)\]"
)  # its content is a text, not a formula
NAMES = re.compile(r'"(?:\\.|[^"\\])*"|\b(?:' + "|".join(map(re.escape, RENAMED)) + r")\b")

# The slanted bold letters of Unicode, and the upright ones.
UPRIGHT = {slanted: slanted - 0x68 for slanted in range(0x1D468, 0x1D49C)}

# What one of the two formats loses or changes, by the command's name.
REFUSED = {
    **dict.fromkeys(("underset", "overset"), r"write \stackrel{a}{=}, or an index"),
    **dict.fromkeys(("hspace", "mspace", "kern", "mkern"), r"use \, or \quad"),
    **dict.fromkeys(("color", "textcolor", "colorbox"), "colours are not in both formats"),
    **dict.fromkeys(("hline", "cline", "hdashline"), "a table of a formula has no lines"),
    **dict.fromkeys(("underbracket", "overbracket"), r"use \underbrace or \overbrace"),
    **dict.fromkeys(("underleftarrow", "underrightarrow", "not{"), "PDF sets another sign"),
    "mod": r"use \bmod or \pmod",
    "substack": "write the conditions in one line",
    "ref": "a formula has no number: name it in the text",
    "eqref": "a formula has no number: name it in the text",
}
COLUMNS = re.compile(r"\\begin\{array\}\{([lcr ]*[^lcr }][^}]*)\}")


def refusal(tex: str) -> str:
    """Why a formula would not mean the same in each handout; empty if it would."""
    commands = SIGN.findall(tex)
    if commands.count(r"\left") != commands.count(r"\right"):
        return r"each \left needs its \right"
    for command in commands:
        if advice := REFUSED.get(command[1:].removesuffix("*")):
            return f"{command} is not the same in HTML and PDF: {advice}"
    if found := re.search(r"\\not\s*\{", tex):
        return f"{found[0]} is not the same in HTML and PDF: {REFUSED['not{']}"
    if found := COLUMNS.search(tex):
        return f"the columns {found[1]} are not the same in HTML and PDF: use l, c and r"
    return ""


def rewritten(tex: str) -> str:
    """`tex` in commands that mean the same in both formats."""
    tex = LABEL.sub("", tex)
    tex = TAG.sub(lambda tag: rf"\qquad\text{{{tag[2] if tag[1] else f'({tag[2]})'}}}", tex)
    tex = MATRIX.sub(lambda edge: EDGES[edge[2]][edge[1] == "end"], tex)
    return SIGN.sub(lambda sign: _replacement(sign[0], tex[sign.end() : sign.end() + 1]), tex)


def _replacement(command: str, following: str) -> str:
    new = REPLACED.get(command, command)
    return f"{new} " if new != command and following.isalpha() else new


def for_typst(tex: str) -> str:
    """`tex`, with a mark in each table without delimiters, which `finished` removes."""
    tex = TABLE.sub(lambda edge: _marked(edge[0].startswith(r"\begin")), tex)
    if not WHOLE.fullmatch(tex):
        tex = INNER.sub(lambda edge: _marked(edge[1] == "begin"), tex)
    return tex


def _marked(is_begin: bool) -> str:
    begin = rf"\begin{{Bmatrix}}\text{{{NO_DELIMITERS}}}"
    return begin if is_begin else r"\end{Bmatrix}"


def upright(mathml: str) -> str:
    r"""A formula in MathML whose bold letters are upright if it has \mathbf, as in TeX and Typst.

    pandoc slants them all.
    """
    if r"\mathbf" not in mathml:
        return mathml
    return mathml.translate(UPRIGHT).replace('"bold-italic"', '"bold"')


def finished(markup: str) -> str:
    """A formula of Typst as pandoc wrote it, with names that Typst has."""
    markup = MARKED.sub("mat(delim: #none, ", markup).replace('mat(delim: "||",', 'mat(delim: "‖",')
    markup = re.sub(r"(?<=\w)(?=\\\|)", " ", markup)  # or a letter would be part of the name below
    markup = BARS.sub(lambda found: TIGHT.get(found[0], found[0]), markup)
    markup = LARGER.sub(r"\1[$\2$]", markup)
    return NAMES.sub(lambda found: RENAMED.get(found[0], found[0]), markup)
