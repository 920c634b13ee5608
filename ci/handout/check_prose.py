"""What of a lesson's prose can't be in all of its handouts, found before any kernel starts."""

import ast
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typst

from ci.errors import CourseError
from ci.handout import dialect, markdown, pdf
from ci.handout.formulas import refusal
from ci.handout.markdown import Formula, in_line, plain
from ci.handout.prose_tree import WEB, Node, lists, nodes
from ci.handout.refusals import reason
from ci.lesson.lesson import Lesson
from ci.lesson.node import NotebookNode

# What remains in the words of a document if Markdown did not read a formula or an emphasis.
LEFT_OVER = {
    "[\u2e80-\u2e9e\u2ea0-\u2ef2]": (  # markdown.plain replaces those that Unicode calls the same
        "it has a radical, which only looks like a character: type the character itself"
    ),
    r"\\begin\{": r"write this formula between $$ and $$; \begin{…} alone does not start one",
    r"\$\$": "$$ must open and close a formula of its own, without an empty line in it",
    r"\\[A-Za-z]|^\$$": "this is not a formula: its dollars must touch it, its braces must close",
    r"\*\*.*[\u4e00-\u9fff]|[\u4e00-\u9fff].*\*\*": (
        "** is not read here: next to Chinese, punctuation goes outside, as in **图**。"
    ),
    r"\*\*": "** is not read here: it must touch the words that it emphasises, as in **word**",
}
SUSPECT = re.compile("|".join(LEFT_OVER))

# The end of a word before code that makes it a role of reStructuredText or MyST, as in :ref:`x`.
ROLE = re.compile(r"(?<!\w)(:[A-Za-z][\w.+:-]*:|\{[a-z][\w:-]*\})$")
DIRECTIVE = re.compile(r"(?m)^[ ]{0,3}\.\. ([\w-]+::|_[^\n]*?:(?=\s|$))")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
ADDRESS = re.compile(r"\]\([^)\s]*\)")
Script = tuple[Path, Sequence[NotebookNode]]  # of a lesson, with its cells
Fault = tuple[str, str]  # the text at fault, and what is wrong with it


def check(lessons: Sequence[Lesson]) -> None:
    """Check before any kernel starts that the prose of `lessons` means the same in each handout.

    Raises CourseError, with file and line, for all faults together: formulas that MathML or Typst
    does not have, text that looks like a formula or an emphasis and is not read as one, pictures,
    links and HTML that no handout can show, and characters that no font has.
    """
    found = faults([(lesson.path, lesson.notebook.cells) for lesson in lessons])
    if lines := [fault for each in found for fault in each]:
        raise CourseError("\n".join(lines))
    # For all lessons at once, as handouts will need them:
    texts = [t for each in lessons for t in dialect.texts(each.notebook.cells, each.path.parent)]
    markdown.spoken(text for text in texts if text.startswith(dialect.CAPTIONS))
    texts += [text for each in lessons for text in _derivations(each.path)]
    for target in ("html", "typst"):
        markdown.render(texts, target)


def faults(scripts: Sequence[Script]) -> list[list[str]]:
    """The faults of the prose of each script, which may have other faults."""
    sources = [dialect.texts(cells, path.parent) for path, cells in scripts]
    derivations = [_derivations(path) for path, _ in scripts]
    texts = [text for each in [*sources, *derivations] for text in each]
    formulas = [f for document in markdown.read(texts) for f in markdown.formulas(document)]
    refused = _refused_formulas(formulas)
    printed = {character for _, cells in scripts for cell in cells for character in _printed(cell)}
    all_have_fonts = not printed or _missing(printed) is None
    return [
        [
            *_prose_faults(script, each, refused),
            *([] if all_have_fonts else _character_faults(script)),
            *_derivation_faults(derived, refused),
        ]
        for script, each, derived in zip(scripts, sources, derivations, strict=True)
    ]


def _derivations(path: Path) -> dict[str, str]:
    """The derivations of a lesson's oracles in Markdown, with the place of each."""
    file = path.parent / "expected" / path.name
    try:
        functions = ast.parse(file.read_text(encoding="utf-8-sig")).body
    except (OSError, SyntaxError, ValueError):  # which the oracle's reader reports
        return {}
    place = f"{path.parent.name}/expected/{path.name}"
    return {
        markdown.escape_words(plain(text)): f"{place}:{each.lineno}"
        for each in functions
        if isinstance(each, ast.FunctionDef) and (text := ast.get_docstring(each))
    }


def _derivation_faults(derivations: Mapping[str, str], refused: Mapping[Formula, str]) -> list[str]:
    """The formulas of derivations that can't be set."""
    trees = zip(markdown.read([*derivations]), derivations.values(), strict=True)
    return [
        f"{place}: the formula {in_line(formula[1])} can't be set: {why}"
        for tree, place in trees
        for formula in markdown.formulas(tree)
        if (why := refused.get(formula))
    ]


def _prose_faults(
    script: Script, sources: Sequence[str], refused: Mapping[Formula, str]
) -> list[str]:
    path, cells = script
    lines = []
    prose = [cell for cell in cells if cell.cell_type == "markdown"]
    trees = zip(prose, markdown.parse(sources), markdown.read(sources), strict=True)
    for cell, tree, document in trees:
        found = [*_tree_faults(tree, path.parent), *_word_faults(document)]
        found += [*_foreign_faults(tree), *_control_faults(cell.source)]
        found += [
            (
                shown := tex.strip() or f"$${tex}$$",
                f"the formula {in_line(shown)} can't be set: {why}",
            )
            for (kind, tex) in markdown.formulas(document)
            if (why := refused.get((kind, tex)))
        ]
        located = [(_line(cell, text), why) for text, why in found]
        by_line = sorted(located, key=lambda each: each[0])
        lines += [f"{path.parent.name}/{path.name}:{line}: {why}" for line, why in by_line]
    return [*dict.fromkeys(lines)]


def _tree_faults(tree: Node, folder: Path) -> Iterator[Fault]:
    """Raw HTML, pictures and links that no handout can show."""
    for node in nodes(tree):
        match node["t"]:
            case "RawInline" | "RawBlock":
                text = node["c"][1].strip().split("\n")[0]
                advice = "is not in the handouts: write it in Markdown, or in `…` to show it"
                yield text, f"the HTML {text} {advice}"
            case "Image":
                if reason := dialect.picture_fault(target := node["c"][2][0], folder):
                    yield target, f"the picture {target}: {reason}"
            case "Link":
                target = node["c"][2][0]
                if reason := "" if target.startswith(WEB) else dialect.link_fault(target, folder):
                    yield target, f"the link to {target}: {reason}"
            case "CodeBlock" if (name := " ".join(node["c"][0][1])).startswith("{"):
                yield (
                    name,
                    f"the directive {name} is not read here: use a callout or plain Markdown",
                )


def _word_faults(document: Node) -> Iterator[Fault]:
    """Text that looks like a formula, an emphasis or a directive, and was not read as one."""
    in_formula = False  # of which one fault is enough
    for text in markdown.words(document):
        if not SUSPECT.search(text):
            continue
        sign = next(sign for sign in LEFT_OVER if re.search(sign, text))
        if not (in_formula and "*" not in sign):
            yield text, f"{text}: {LEFT_OVER[sign]}"
        in_formula ^= text.count("$$") % 2 == 1


def _foreign_faults(tree: Node) -> Iterator[Fault]:
    """Roles, links and directives of reStructuredText and MyST, which Markdown shows as text."""
    advice = (
        "is reStructuredText or MyST, which is not read here: write it in Markdown, or remove it"
    )
    for siblings in lists(tree):
        for node, after in itertools.pairwise(siblings):
            if node["t"] == "Str" and after["t"] == "Code" and (role := ROLE.search(node["c"])):
                yield f"{role[1]}`{after['c'][1]}`", f"{role[1]}`{after['c'][1]}` {advice}"
            elif node["t"] == "Code" and after["t"] == "Str" and after["c"].startswith("_"):
                yield f"`{node['c'][1]}`_", f"`{node['c'][1]}`_ {advice}"
            elif node == {"t": "Str", "c": ".."} and (name := DIRECTIVE.match(_text(siblings))):
                yield f".. {name[1]}", f".. {name[1]} {advice}"


def _text(siblings: list[Node]) -> str:
    """The beginning of a paragraph, as words with single spaces."""
    return "".join(node["c"] if node["t"] == "Str" else " " for node in siblings[:5])


def _control_faults(source: str) -> Iterator[Fault]:
    r"""Control characters, which no handout shows. They come from `\f` in text that is not raw."""
    for character in dict.fromkeys(CONTROL.findall(source)):
        named = f"U+{ord(character):04X}"
        yield character, f"the control character {named}: remove it, or write the \\ that it was"


def _refused_formulas(formulas: list[Formula]) -> dict[Formula, str]:
    """The formulas that can't be set in each handout, and why."""
    with ThreadPoolExecutor() as threads:  # each waits for a process of pandoc
        setting = functools.partial(markdown.set_formulas, formulas)
        in_html, in_typst = threads.map(setting, ("html", "typst"))
    why = "pandoc does not know this TeX"
    unknown = {tex: why for tex in in_html if not (in_html[tex] and in_typst[tex])}
    unknown |= {tex: why for tex in in_html if (why := refusal(tex[1]))}
    unknown |= {tex: "it is empty" for tex in in_html if not tex[1].strip()}
    known = {formula: markup for formula, markup in in_typst.items() if formula not in unknown}
    if not _refusal("\n\n".join(known.values())):
        return unknown
    reasons = {formula: _refusal(markup) for formula, markup in known.items()}
    return unknown | {formula: reason for formula, reason in reasons.items() if reason}


def _refusal(formulas: str) -> str:
    """Why Typst refuses formulas in its own markup; empty if it does not."""
    try:
        pdf.typeset(f'#import "handout.typ" as sheet\n#show: sheet.formulas-in\n{formulas}')
    except typst.TypstError as error:
        return f"Typst: {error.message}"
    return ""


def _character_faults(script: Script) -> list[str]:
    """The characters that no font has, each where it is first."""
    path, cells = script
    texts = {cell.id: _printed(cell) for cell in cells}
    used, lines = {*"".join(texts.values())}, []
    while used and (found := _missing(used)):
        missing, why = found
        used -= {*missing}
        cell = next(c for c in cells if missing in texts[c.id])
        place = f"{path.parent.name}/{path.name}:{_line(cell, missing)}"
        lines.append(f"{place}: {why}: replace it by words or a sign")
    return lines


def _printed(cell: NotebookNode) -> str:
    """What of a cell is printed: no comments and no addresses of links."""
    source = dialect.canonical(cell.source) if cell.cell_type == "markdown" else cell.source
    return ADDRESS.sub("]", plain(source))


def _missing(characters: set[str]) -> tuple[str, str] | None:
    """One of `characters` that no font has, and the words that say so."""
    try:
        pdf.typeset(f"#{pdf.literal(' '.join(sorted(characters)))}")
    except typst.TypstError as error:
        named = [chr(int(point, 16)) for point in re.findall(r"U\+([0-9A-F]+)", reason(error))]
        return next(((c, reason(error)) for c in named if c in characters), None)
    return None


def _line(cell: NotebookNode, text: str) -> int:
    """The line of the script with `text`, which is in a cell."""
    word = re.search(rf"(?<!\S){re.escape(text)}(?!\S)", cell.source)
    start = word.start() if word else max(cell.source.find(text), 0)
    return int(cell.metadata.line + cell.source[:start].count("\n"))
