"""The notebooks that students open: a lesson as it was executed, and the workbook of its exercises.

Both run where the course is not installed: they write the lesson's own modules beside themselves.
The workbook knows the expected values of the run that it was published with, and needs only torch,
NumPy, matplotlib and Jupyter. In the instructors' edition, solutions take the place of the blanks.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ci.handout import check_table, dialect, figure_font, jupyter_prose, self_check
from ci.handout.handout import Handout
from ci.handout.markdown import escape
from ci.handout.translations import translations
from ci.judge import tolerances
from ci.judge.compare import floating_dtype
from ci.judge.listings import LISTING
from ci.judge.outcome import Answer
from ci.lesson import parameters
from ci.lesson.code import imported_modules
from ci.lesson.exercises import PREDICT, SETUP, Exercise, tags
from ci.lesson.lesson import KERNELSPEC
from ci.lesson.node import NotebookNode, copied
from ci.lesson.parameters import Value
from ci.lesson.value import Comparable

RAISES = "raises-exception"  # Jupyter goes on after such a cell
# JupyterLab shows a bar, and the source or the output at a click
FOLDED = {"jupyter": {"source_hidden": True}}
UNSEEN = {"collapsed": True, "jupyter": {"outputs_hidden": True}}
LINE = 88  # characters: a longer call of a check is written on several lines


def text_of(notebook: NotebookNode) -> str:
    """The notebook as the content of its file."""
    return str(nbformat.writes(notebook, version=4)) + "\n"


def lesson_notebook(prepared: NotebookNode) -> NotebookNode:
    """The notebook of a lesson: a prepared one, with its metadata as Markdown cells."""
    notebook: NotebookNode = copied(prepared)
    about = notebook.metadata.pop("handout")
    labels, language = translations(about.language), {"lang": about.language}
    notebook.cells = with_modules(notebook.cells, Path(about.folder), labels)
    notebook.cells = figure_font.with_font(notebook.cells, labels, FOLDED)
    if about.notes:
        notes = new_markdown_cell(quote(about.notes), id="notes", metadata=language)
        notebook.cells.insert(0, notes)
    table = "\n".join(check_table.as_markdown(about, labels))
    notebook.cells = [for_jupyter(cell) for cell in notebook.cells]
    notebook.cells.append(new_markdown_cell(table, id="checks", metadata=language))
    return notebook


def for_jupyter(cell: NotebookNode) -> NotebookNode:
    """`cell`, whose prose is in the handouts' dialect, as Jupyter shows and runs it best."""
    if cell.cell_type == "markdown":
        cell.source = jupyter_prose.rewrite(cell.source)
    cell.metadata.pop(LISTING, None)
    if PREDICT in tags(cell):
        cell.metadata |= UNSEEN
    if cell.metadata.get("raises"):
        cell.metadata["tags"] = [*tags(cell), RAISES]
    return cell


def quote(notes: Sequence[str]) -> str:
    """Notes as one quotation in Markdown."""
    return "\n>\n".join(f"> **{escape(note)}**" for note in notes)


def workbook(handout: Handout, language: str) -> NotebookNode:
    """The notebook of a lesson's exercises: parameters and setup, then each exercise's task, its
    blank or solution, and a check."""
    labels = translations(language)
    cells = [*_setup(handout)]
    for exercise in handout.lesson.exercises:
        cells += _exercise(handout, exercise, language)
    cells = with_modules(cells, handout.lesson.path.parent, labels)
    cells = figure_font.with_font(cells, labels, FOLDED)
    metadata = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    notebook: NotebookNode = new_notebook(
        cells=[*_opening(handout, language, labels), *cells], metadata=metadata
    )
    return notebook


def _opening(handout: Handout, language: str, labels: Mapping[str, str]) -> Iterator[NotebookNode]:
    title = f"# {handout.lesson.titles[language]} · {labels[handout.edition.workbook]}"
    parts = [title, quote(handout.notes_in(language)), labels["how to"]]
    text = "\n\n".join(part for part in parts if part)
    yield new_markdown_cell(text, id="title", metadata={"lang": language})
    yield new_code_cell(self_check_source(), id="check-answer", metadata=FOLDED)


def self_check_source() -> str:
    """The source of `self_check`, with the source of `tolerances` in the place of its import."""
    shared = inspect.getsource(tolerances).rstrip()
    source = inspect.getsource(self_check).rstrip()
    imports = r"(?ms)^from ci\.judge\.tolerances import \(.*?\)$"
    return re.sub(imports, lambda _: shared, source)


def _setup(handout: Handout) -> Iterator[NotebookNode]:
    """The cells whose names exercises may use: the parameters, and those tagged `setup`."""
    for cell in handout.lesson.notebook.cells:
        if "parameters" in tags(cell):
            # The device stays as the lesson's author wrote it, since students may have no GPU.
            values = {n: v for n, v in handout.outcome.run.parameters.items() if n != "device"}
            source = parameters.with_values(cell.source, values)
        elif SETUP in tags(cell):
            source = cell.source
        else:
            continue
        yield new_code_cell(source, id=cell.id, metadata={"tags": tags(cell)})


def _exercise(handout: Handout, exercise: Exercise, language: str) -> Iterator[NotebookNode]:
    cells = {cell.id: cell for cell in handout.lesson.notebook.cells}
    for cell in (cells[name] for name in exercise.prose):
        if cell.metadata.get("lang", language) == language:
            text = new_markdown_cell(cell.source, id=cell.id, metadata={"lang": language})
            dialect.attach(text, handout.lesson.path.parent)
            yield for_jupyter(text)
    code = cells[exercise.solution] if handout.edition.solutions else exercise.blank
    yield new_code_cell(code.source, id=code.id, metadata={"tags": tags(code)})
    answer, values = handout.outcome.answers[exercise.name], handout.outcome.run.parameters
    call = check_call(exercise.name, answer, values, language)
    # An exercise that is not solved yet must not stop "Run all".
    yield new_code_cell(call, id=f"check-{code.id}", metadata={"tags": [RAISES]})


def check_call(name: str, answer: Answer, values: Mapping[str, Value], language: str) -> str:
    """The source of a check: a call of `check_answer` with the expected value and its rule.

    Options that have their default values are left out.
    """
    rule = answer.rule
    floating = any(leaf.dtype == "float64" for leaf in answer.expected.leaves())
    options = {
        "dtype": floating_dtype(rule, values) if floating else None,
        "rel": rule.rel,
        "absolute": rule.abs,
        "elementwise": rule.elementwise,
        "scale": max((leaf.scale for leaf in answer.expected.leaves()), default=0.0),
        "language": language,
    }
    defaults = inspect.signature(self_check.check_answer).parameters
    chosen = [
        f"{key}={parameters.literal(value)}"
        for key, value in options.items()
        if value is not None and value != defaults[key].default
    ]
    arguments = [f'"{name}"', name, literal(answer.expected), *chosen]
    line = f"check_answer({', '.join(arguments)})"
    if len(line) <= LINE:
        return line
    return "\n".join(["check_answer(", *(f"    {argument}," for argument in arguments), ")"])


def literal(value: Comparable) -> str:
    """Python source of `value`, with all of its digits; it needs NumPy as `np`."""
    match value.kind:
        case "array":
            source = f'np.array({_numbers(value.value.tolist())}, dtype="{value.dtype}")'
            return source if value.value.size else f"{source}.reshape({value.value.shape})"
        case "float":
            return _numbers(float(value.value))
        case "sequence":
            return f"[{', '.join(map(literal, value.items.values()))}]"
        case "mapping":
            pairs = zip(value.python(), value.items.values(), strict=True)
            items = (f"{key!r}: {literal(item)}" for key, item in pairs)
            return f"{{{', '.join(items)}}}"
    return repr(value.value)


def _numbers(value: Any) -> str:
    """The source of nested lists of numbers; NaN and infinities have no literals of their own."""
    if isinstance(value, list):
        return f"[{', '.join(map(_numbers, value))}]"
    if isinstance(value, complex):
        return f"complex({_numbers(value.real)}, {_numbers(value.imag)})"
    return re.sub("nan|inf", r"np.\g<0>", repr(value))


def with_modules(
    cells: Sequence[NotebookNode], folder: Path, labels: Mapping[str, str]
) -> list[NotebookNode]:
    """`cells`, and before the first that imports a module of `folder`, cells that write all of
    these modules. A package is written whole, since a rank may import its other modules."""
    files = {}
    for name in sorted({name for cell in cells for name in _imports(cell)}):
        module = folder / f"{name}.py"
        for path in [module] if module.is_file() else sorted((folder / name).rglob("*.py")):
            files[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
    if not files:
        return [*cells]
    modules = {Path(name).parts[0].removesuffix(".py") for name in files}
    first = next(i for i, cell in enumerate(cells) if modules & _imports(cell))
    return [*cells[:first], *_writers(files, labels["files"]), *cells[first:]]


def _imports(cell: NotebookNode) -> set[str]:
    return set(imported_modules(cell.source)) if cell.cell_type == "code" else set()


def _writers(files: Mapping[str, str], introduction: str) -> Iterator[NotebookNode]:
    """The cells that write `files`, and their folders before them."""
    yield new_markdown_cell(introduction, id="files")
    folders = sorted({Path(name).parent.as_posix() for name in files} - {"."})
    if folders:
        lines = [f'Path("{folder}").mkdir(parents=True, exist_ok=True)' for folder in folders]
        source = "\n".join(["from pathlib import Path", "", *lines])
        yield new_code_cell(source, id="folders", metadata=FOLDED)
    for name, text in files.items():
        cell = f"file-{re.sub('[^A-Za-z0-9]', '-', name)}"[:64]  # as nbformat restricts ids
        yield new_code_cell(f"%%writefile {name}\n{text}", id=cell, metadata=FOLDED)
