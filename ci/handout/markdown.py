"""Markdown and its formulas to HTML (with MathML) and to Typst, by pandoc.

All texts of a call go through one process of pandoc, because starting it takes longer than its
work, and what was made is kept, because formats and editions share most of it. Each text is still
read as a file of its own, so that an unclosed fence or a footnote never reaches the next text. In
between, pandoc's own tree is changed (`prose_tree`), and each formula is set by itself, so that an
error can name it.
"""

import functools
import json
import re
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from ci.errors import CourseError, MachineError
from ci.handout import formulas as formula_tex
from ci.handout.dialect import canonical
from ci.handout.prose_tree import Node, for_target, mapped, nodes, tame, with_tags

Target = Literal["html", "typst"]
Source = TypeVar("Source", str, tuple[str, str])
Result = TypeVar("Result")
Formula = tuple[str, str]  # "InlineMath" or "DisplayMath", and its TeX

# Line breaks between Chinese characters are not spaces. `:smile:` and a leading `---` stay text.
READER = "gfm+tex_math_dollars+east_asian_line_breaks-emoji-yaml_metadata_block"
BREAK = {"t": "SoftBreak"}
A_FEW = 250  # texts, which pandoc reads in a tenth of a second
FORMULA_OR_CODE = re.compile(r"(\$[^\s$`](?:[^$`]*[^\s$`])?\$|`[^`]+`)")
# Escaped, they would begin and end a formula.
BRACKETS = {"(": "&#40;", ")": "&#41;", "[": "&#91;", "]": "&#93;"}
BRACKET = re.compile(r"\\([()\[\]])")
# A browser would break the line between a formula and the mark after it.
AND_MARK = re.compile(
    r'(?s)<math display="inline"(?:(?!</math>).)*</math>[.,;:!?)。，；：、）？！]+'
)
COLON = re.compile("(?<=`)[：；]")  # after code, where Typst would break the line
WHOLE = r'<span class="whole">\g<0></span>'
SEPARATOR = "\x1e"  # before or after texts, which contain no control characters
# Kangxi radicals and compatibility ideographs, which look like usual characters and are others.
TWINS = re.compile("[\u2e9f\u2ef3\u2f00-\u2fd5\uf900-\ufaff\U0002f800-\U0002fa1f]")
MADE: dict[str, dict[Any, Any]] = {}  # trees, formulas and markup by kind, and by their sources


def plain(text: str) -> str:
    """`text` without colours and other control characters, except newlines and tabs, and with the
    usual form of Chinese characters that Unicode has twice."""
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text).replace("\r\n", "\n")
    text = TWINS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]", "", text)


def visible(text: str) -> str:
    """`text` with the names of characters that would turn its direction around: `<U+202E>`."""
    return re.sub("[\u202a-\u202e\u2066-\u2069]", lambda c: f"<U+{ord(c[0]):04X}>", text)


def escape(text: str) -> str:
    """`text` as Markdown that means exactly this text, in one line."""
    return _escape(in_line(text))


def _escape(text: str) -> str:
    escaped = re.sub(r"([\\`*_{}\[\]<>()#+!|$~&-])", r"\\\1", text)
    return BRACKET.sub(lambda found: BRACKETS[found[1]], escaped)


def escape_words(text: str) -> str:
    """`text` as Markdown in which only formulas, as `$x^2$`, and code have a meaning."""
    parts = FORMULA_OR_CODE.split(in_line(text))
    parts[::2] = map(_escape, parts[::2])
    parts[1::2] = map(_without_bars, parts[1::2])
    return re.sub(r"\A(\d+)([.)])", r"\1\\\2", "".join(parts))


def _without_bars(part: str) -> str:
    """A formula without the bars that would end a cell of a table; code as it is."""
    if part[0] == "`":
        return part
    tex = part[1:-1].replace(r"\|", r"\Vert ").replace("|", r"\vert ")
    return f"${tex.strip()}$"


def render(texts: Iterable[str], target: Target) -> dict[str, str]:
    """Each of `texts`, which are Markdown, in the markup of `target`.

    Headings have no identifiers, a picture that is no attachment is replaced by its words, and only
    links to the web and to lessons stay links. Raises CourseError, with the formula, for a formula
    that pandoc can't convert.
    """
    return _once(target, texts, lambda new: _render(new, target))


def adopt(made: Mapping[str, Mapping[str, str]]) -> None:
    """Take what `render` (by its target) and `spoken` (by "plain") returned in another process."""
    for kind, results in made.items():
        MADE.setdefault(kind, {}).update(results)


def _once(
    kind: str, sources: Iterable[Source], make: Callable[[list[Source]], Iterable[Result]]
) -> dict[Source, Result]:
    """The result for each of `sources`, which `make` makes of those that are new."""
    wanted = list(dict.fromkeys(sources))
    made = MADE.setdefault(kind, {})
    if new := [source for source in wanted if source not in made]:
        made |= zip(new, make(new), strict=True)
    return {source: made[source] for source in wanted}


def _render(texts: Sequence[str], target: Target) -> list[str]:
    documents = read(texts)
    setting = set_formulas([f for document in documents for f in formulas(document)], target)
    if bad := [tex for (_, tex), markup in setting.items() if not markup]:
        raise CourseError(f"the formula {bad[0]} can't be set: pandoc does not know this TeX")

    def with_formulas(node: Node) -> Node:
        if node.get("t") != "Math":
            return node
        markup = setting[_formula(node)]
        if target == "typst":
            markup = _described(markup, node["c"][1])
        return {"t": "RawInline", "c": [target, markup]}

    written = _write(documents, target, with_formulas)
    mark, joined = (AND_MARK, WHOLE) if target == "html" else (COLON, r"#sym.wj;\g<0>")
    return [mark.sub(joined, text) for text in written]


def spoken(texts: Iterable[str]) -> dict[str, str]:
    """Each of `texts`, which are Markdown, as words in one line for a screen reader."""
    return _once("plain", texts, lambda new: [in_line(w) for w in _write(read(new), "plain")])


def _described(markup: str, tex: str) -> str:
    """A formula of Typst, with its TeX for screen readers."""
    block = "true" if markup.startswith("$ ") else "false"
    alt = json.dumps(in_line(tex), ensure_ascii=False)
    return f"#math.equation(block: {block}, alt: {alt}, {markup}.body);"


def read(texts: Sequence[str]) -> list[Node]:
    """pandoc's tree of each of `texts`, which is the list of its blocks, with nothing but what
    every handout can show."""
    made = _once("tame", texts, lambda new: [_changed(tree, tame) for tree in parse(new)])
    return [made[text] for text in texts]


def parse(texts: Sequence[str]) -> list[Node]:
    """Like `read`, but with the pictures, links and HTML that no handout can show."""
    made = _once("parsed", texts, _parse)
    return [made[text] for text in texts]


def _parse(texts: Sequence[str]) -> list[Node]:
    parts = [texts[start : start + A_FEW] for start in range(0, len(texts), A_FEW)]
    with ThreadPoolExecutor() as threads:  # each waits for a process of pandoc
        return [tree for trees in threads.map(_parse_together, parts) for tree in trees]


def _parse_together(texts: Sequence[str]) -> list[Node]:
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(texts):
            source = f"{SEPARATOR}\n\n{canonical(plain(text))}\n"
            (Path(folder) / f"{number}.md").write_text(source, "utf-8")
        names = [f"{number}.md" for number in range(len(texts))]
        tree = json.loads(_pandoc(["-f", READER, "-t", "json", "--file-scope", *names], cwd=folder))
    documents: list[Node] = []
    for block in tree["blocks"]:
        if block == {"t": "Para", "c": [{"t": "Str", "c": SEPARATOR}]}:
            documents.append([])
        else:
            documents[-1].append(block)
    return [with_tags(document) for document in documents]


def formulas(document: Node) -> Iterator[Formula]:
    """The formulas of a tree, in order."""
    return (_formula(node) for node in nodes(document) if node["t"] == "Math")


def words(document: Node) -> Iterator[str]:
    """The words of a tree, without formulas and code."""
    return (node["c"] for node in nodes(document) if node["t"] == "Str")


def set_formulas(wanted: Iterable[Formula], target: Target) -> dict[Formula, str]:
    """Each formula in MathML or in Typst; empty if pandoc can't convert it."""
    return _once(f"formulas in {target}", wanted, lambda new: _set_formulas(new, target))


def _set_formulas(wanted: Sequence[Formula], target: Target) -> list[str]:
    paragraphs = [
        [{"t": "Para", "c": [{"t": "Math", "c": [{"t": kind}, _tex_for(tex, target)]}]}]
        for kind, tex in wanted
    ]
    start, end = ("<p><math", "</p>") if target == "html" else ("$", "")
    return [
        _finished(markup.removeprefix("<p>").removesuffix(end), target)
        if markup.startswith(start)
        else ""
        for markup in _write(paragraphs, target)
    ]


def _tex_for(tex: str, target: Target) -> str:
    tex = formula_tex.rewritten(tex)
    return formula_tex.for_typst(tex) if target == "typst" else tex


def _finished(markup: str, target: Target) -> str:
    return formula_tex.finished(markup) if target == "typst" else formula_tex.upright(markup)


def _write(
    documents: Sequence[Node],
    target: Target | Literal["plain"],
    change: Callable[[Node], Node] = lambda node: node,
) -> list[str]:
    """Each document, with its nodes changed, in the markup of `target`."""
    separator = {"t": "RawBlock", "c": [target, SEPARATOR]}
    shown = (_changed(tree, lambda node: for_target(change(node), target)) for tree in documents)
    blocks = [block for document in shown for block in [*document, separator]]
    tree = {"pandoc-api-version": _version(), "meta": {}, "blocks": blocks}
    options = ["--mathml", "--wrap=none", "--syntax-highlighting=none"]
    # Footnotes stay in the text that has them, and do not go to the end of the document.
    options += ["--reference-location=block"]
    markup = _pandoc(["-f", "json", "-t", target, *options], json.dumps(tree))
    return [part.strip() for part in markup.split(SEPARATOR)[:-1]]


def _joined(nodes: list[Node]) -> list[Node]:
    """`nodes` without line breaks beside Chinese punctuation, which includes its own space."""
    if BREAK not in nodes:
        return nodes
    texts = ["", *(_text(node) for node in nodes), ""]
    return [
        node
        for node, before, after in zip(nodes, texts, texts[2:], strict=False)
        if node != BREAK or not any(map(_is_wide_mark, (before[-1:], after[:1])))
    ]


def _text(node: Node) -> str:
    return str(node["c"]) if isinstance(node, dict) and node.get("t") == "Str" else ""


def _is_wide_mark(character: str) -> bool:
    return bool(character) and (
        unicodedata.east_asian_width(character) in "WF"
        and unicodedata.category(character).startswith("P")
    )


def _changed(part: Node, change: Callable[[Node], Node]) -> Node:
    """A tree whose nodes are changed, each after its parts."""
    if isinstance(part, dict):
        return change(mapped(part, lambda child: _changed(child, change)))
    return mapped(_joined(part), lambda child: _changed(child, change))


def in_line(text: str) -> str:
    """`text` with single spaces in the place of all white space."""
    return " ".join(text.split())


def _formula(node: Node) -> Formula:
    return node["c"][0]["t"], node["c"][1]


@functools.cache
def _version() -> list[int]:
    """The version of the tree that this pandoc reads and writes."""
    version: list[int] = json.loads(_pandoc(["-t", "json"]))["pandoc-api-version"]
    return version


def _pandoc(arguments: Sequence[str], text: str = "", cwd: str | None = None) -> str:
    """pandoc's output. Its warnings are about formulas, and callers see these in the output.

    Raises CourseError if pandoc fails, MachineError if it is missing.
    """
    import pypandoc  # slow to import

    try:
        command = [pypandoc.get_pandoc_path(), *arguments]
    except OSError as error:
        why = str(error).splitlines()[0]
        raise MachineError(f"pandoc: {why}: reinstall the package pypandoc-binary") from None
    done = subprocess.run(command, input=text.encode(), capture_output=True, cwd=cwd, check=False)
    if done.returncode:
        raise CourseError(f"pandoc: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
