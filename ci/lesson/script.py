"""A lesson's script as text and as cells, which hold its text character for character.

The cells follow the py:percent format. jupytext is not used: it executes comments that look like
commands, cuts lines at characters such as U+2028, and drops attributes that it cannot read.
"""

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ci.errors import CourseError
from ci.lesson import header, marks
from ci.lesson.code import statements
from ci.lesson.fault import ScriptError as ScriptError
from ci.lesson.node import NotebookNode

SECOND_HEADER = re.compile(r"#\s*jupyter:\s*$")
HEADER_LIKE = re.compile(
    r"#\s*-{1,5}\s*$|-{3,5}\s*$|#\s*(jupyter|jupytext|lesson\w*|kernelspec|gpus)\s*:", re.I
)
EXPORTED = re.compile(r"# In ?\[[\d ]*\]:")
# A script whose first text has a heading of reStructuredText.
GALLERY = re.compile(
    r"""(?xs)(?:\s|\#[^\n]*\n)*[rR]?(?P<quotes>\"{3}|'{3})(?:(?!(?P=quotes)).)*?
    \n(?P<line>[=~^*\#-])(?P=line){2,}[ \t]*\n"""
)
PROGRAMS = {"os.system", "subprocess.call", "subprocess.run"}
NOT_CLOSED = re.compile("EOF in multi-line string|unterminated triple-quoted")


@dataclass(frozen=True)
class Block:
    """The lines of one cell, which begins at index `start`; line `mark` is its `# %%` line."""

    mark: int | None
    start: int
    lines: Sequence[str]


def split_lines(text: str) -> list[str]:
    """The lines of a script. Only a newline ends a line; str.splitlines knows nine others."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def blocks(lines: Sequence[str], start: int) -> Iterator[Block]:
    """The cells of a script whose header ends before `start`."""
    mark, first = None, start
    for number in range(start, len(lines)):
        if marks.MARK.match(lines[number]) and not _in_string(lines[first:number]):
            yield Block(mark, first, lines[first:number])
            mark, first = number, number + 1
    yield Block(mark, first, lines[first:])


def _in_string(lines: Sequence[str]) -> bool:
    """Whether the code that ends here is inside a string with triple quotes."""
    text = "\n".join(lines)
    if not re.search("\"\"\"|'''", text) or re.match(r"\s*%%", text):
        return False
    try:
        for _ in tokenize.generate_tokens(io.StringIO(text).readline):
            pass
    except (tokenize.TokenError, SyntaxError) as error:
        return bool(NOT_CLOSED.search(str(error)))
    return False


def parse(text: str) -> NotebookNode:
    """The notebook of a script: its metadata has the header's section `lesson`, and the faults.

    A fault is a pair of line and message. The metadata of each cell has its line and attributes.
    """
    lines, faults = split_lines(text), []
    settings, end, found = header.read(lines)
    faults += found
    notebook = NotebookNode(cells=[], metadata=NotebookNode(), nbformat=4, nbformat_minor=5)
    cells = list(blocks(lines, end))
    for block in cells:
        cell, found = _cell(block, lines)
        faults += found
        if cell is not None:
            notebook.cells.append(cell)
    if GALLERY.match("\n".join(cells[0].lines)) and not any("[markdown]" in x for x in lines):
        message = "a script of sphinx-gallery: make a notebook of it by sphinx_gallery_py2jupyter"
        faults = [(1, f"{message}, and a script of that by `jupytext --to py:percent`")]
    elif cells[-1].mark is None and text.strip():
        message = "no cells found; run `jupytext --to py:percent` on this script"
        if any(EXPORTED.match(line) for line in lines):
            message = (
                "a script of nbconvert: run `jupytext --to py:percent` on its notebook instead"
            )
        faults.append((1, message))
    if _in_string(cells[-1].lines):
        faults.append((cells[-1].start + 1, "a string with triple quotes has no end: close it"))
    for number, line in enumerate(lines[end:], end + 1):
        if SECOND_HEADER.match(line):
            faults.append((number, "a header here is not read: it must begin in line 1"))
    notebook.metadata = NotebookNode(lesson=settings, faults=[list(fault) for fault in faults])
    return notebook


def _cell(block: Block, lines: Sequence[str]) -> tuple[NotebookNode | None, list[marks.Fault]]:
    """The cell of a block, or None for an empty beginning; and the faults."""
    body = list(block.lines)
    if block.mark is None:
        likely = next((i for i, line in enumerate(body) if HEADER_LIKE.match(line)), None)
        if likely is not None:
            message = "a header that is not read: it must begin in line 1 and end with `# ---`"
            return None, [(block.start + likely + 1, message)]
        if not any(line.strip() for line in body):
            return None, []
    first = next((i for i, line in enumerate(body) if line.strip(" \t")), 0)
    last = max((i for i, line in enumerate(body) if line.strip(" \t")), default=first - 1)
    body = body[first : last + 1]
    faults: list[marks.Fault] = []
    kind, attributes = "code", dict[str, Any]()
    if block.mark is not None:
        above = lines[block.mark - 1].strip() if block.mark else ""
        kind, attributes, faults = marks.read(lines[block.mark], block.mark + 1, bool(above))
    if kind != "code":
        try:
            body = _uncomment(body)
        except ValueError:
            message = "a text cell must consist of comments: begin each line with `# `"
            faults.append((block.start + first + 1, message))
    cell = NotebookNode(
        cell_type=kind if kind in ("code", "raw") else "markdown",
        metadata=NotebookNode({**attributes, "line": block.start + first + 1}),
        source="\n".join(body),
    )
    if kind == "code":
        cell.update(execution_count=None, outputs=[])
        faults += _nearly_marks(body, block.start + first + 1)
    return cell, faults


def _nearly_marks(body: Sequence[str], line: int) -> list[marks.Fault]:
    """The comments of a code cell that were meant to begin a cell."""
    return [
        (line + i, f"'{text.strip()}' begins no cell: write `# %%` and a space before attributes")
        for i, text in enumerate(body)
        if marks.NEARLY.match(text) and not _in_string(body[:i])
    ]


def _uncomment(body: Sequence[str]) -> list[str]:
    """The text of a text cell: the lines without `# `, or what stands between triple quotes."""
    if quoted := re.fullmatch(r"[rR]?(\"\"\"|''')\n?(.*?)\n?\1\s*", "\n".join(body), re.S):
        return quoted[2].split("\n")
    if any(line.strip() and not line.startswith("#") for line in body):
        raise ValueError
    return [line.removeprefix("# ") if line[:2] == "# " else line[1:] for line in body]


def parse_code(source: str, line: int, subject: str) -> list[ast.stmt]:
    """The statements of the code that starts at `line`. Raises ScriptError about `subject`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source).body
    except SyntaxError as error:
        at = line + (error.lineno or 1) - 1
        raise ScriptError(f"{subject} is not plain Python: {error.msg}", at) from None
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "the expression is nested too deeply"
        raise ScriptError(f"{subject} is not plain Python: {reason}", line) from None


def first_ignored_status(source: str) -> tuple[str, int] | None:
    """The first call in a cell that starts a program and ignores its failure, and its row."""
    if not re.search("system|subprocess", source):
        return None
    found = statements(source)
    shown = [] if source.rstrip().endswith(";") else found[-1:]
    for node in ast.walk(ast.Module(found, [])):
        match node:
            case ast.Expr(ast.Call(function, keywords=keywords)) if node not in shown:
                name = ast.unparse(function)
                if name in PROGRAMS and not {"check", None} & {word.arg for word in keywords}:
                    return name, node.lineno - 1
    return None


class LessonError(CourseError):
    """All faults of a lesson's script, in the order of their lines, and its cells."""

    def __init__(self, faults: Sequence[str], cells: Sequence[NotebookNode]) -> None:
        super().__init__("\n".join(faults))
        self.cells = cells
