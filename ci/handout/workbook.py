"""The notebook of a lesson's exercises: tasks, blanks, and after each a check that it brings along.

It runs with torch, NumPy, matplotlib and Jupyter alone, and knows the expected values of the run
that it was published with. The instructors' has the solutions in the place of the blanks.
"""

import inspect
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ci.handout import handout, self_check, vendor
from ci.handout.handout import Handout
from ci.handout.translations import translations
from ci.judge import tolerances
from ci.judge.compare import floating_dtype
from ci.judge.outcome import Answer
from ci.lesson import parameters
from ci.lesson.exercises import SETUP, Exercise, tags
from ci.lesson.lesson import KERNELSPEC, LANGUAGES
from ci.lesson.parameters import Value
from ci.lesson.value import Comparable

LONGEST = 88  # characters of a check that stands in one line


def write(made: Handout, folder: Path, languages: Sequence[str] = LANGUAGES) -> list[Path]:
    """Write `{en,zh}/<lesson>_exercises.ipynb` below `folder`, `_solutions` for instructors.

    The paths; none for a lesson without exercises, or without their expected values.
    """
    paths = []
    for language in languages if made.workbook else ():
        path = folder / language / made.workbook
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(nbformat.writes(workbook(made, language), version=4) + "\n", "utf-8")
        paths.append(path)
    return paths


def workbook(made: Handout, language: str) -> NotebookNode:
    """The notebook of the exercises in one language."""
    parts = (_parts(made, exercise, language) for exercise in made.lesson.exercises)
    cells = [*_setup(made), *itertools.chain.from_iterable(parts)]
    texts = vendor.files(cells, made.lesson.path.parent)
    cells = [
        *_opening(made, language),
        *vendor.insert(cells, texts, translations(language)["files"]),
    ]
    metadata = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    notebook: NotebookNode = new_notebook(cells=cells, metadata=metadata)
    return notebook


def _opening(made: Handout, language: str) -> Iterator[NotebookNode]:
    say = translations(language)
    title = f"# {made.lesson.titles[language]} · {say[made.edition.workbook]}"
    lines = [title, *handout.quote_notes(made.notes_in(language)), say["how to"]]
    yield new_markdown_cell("\n\n".join(lines), id="title", metadata={"lang": language})
    yield new_code_cell(self_check_source(), id="check-answer", metadata=vendor.FOLDED)


def self_check_source() -> str:
    """The source of `self_check`, with that of `tolerances` in the place of its import."""
    tables = inspect.getsource(tolerances).rstrip()
    source = inspect.getsource(self_check).rstrip()
    return re.sub(r"(?m)^from ci\.judge\.tolerances import .*$", lambda _: tables, source)


def _setup(made: Handout) -> Iterator[NotebookNode]:
    """What blanks may use: the parameters, and what `setup` cells make."""
    for cell in made.lesson.notebook.cells:
        if "parameters" in tags(cell):
            source = parameters.with_values(cell.source, _portable(made))
        elif SETUP in tags(cell):
            source = cell.source
        else:
            continue
        yield new_code_cell(source, id=cell.id, metadata={"tags": tags(cell)})


def _portable(made: Handout) -> dict[str, Value]:
    """The values of the run, but for the device: the lesson's own is one that everybody has."""
    return {name: value for name, value in made.parameters.items() if name != "device"}


def _parts(made: Handout, exercise: Exercise, language: str) -> Iterator[NotebookNode]:
    """An exercise: its task, what is to be filled in or has been, and the check."""
    cells = {cell.id: cell for cell in made.lesson.notebook.cells}
    for cell in (cells[name] for name in exercise.prose):
        if cell.metadata.get("lang", language) == language:
            yield new_markdown_cell(cell.source, id=cell.id, metadata={"lang": language})
    own = cells[exercise.solution] if made.edition.solutions else exercise.blank
    yield new_code_cell(own.source, id=own.id, metadata={"tags": tags(own)})
    call = check_call(exercise.name, made.answers[exercise.name], made.parameters, language)
    yield new_code_cell(call, id=f"check-{own.id}")


def check_call(name: str, answer: Answer, values: Mapping[str, Value], language: str) -> str:
    """The source of the check of `name`: a call of `check_answer` with all that it needs."""
    rule = answer.rule
    floating = any(leaf.dtype == "float64" for leaf in answer.expected.leaves())
    options = {
        "dtype": floating_dtype(rule, values) if floating else None,
        "rel": rule.rel,
        "absolute": rule.abs,
        "elementwise": rule.elementwise,
        "language": language,
    }
    usual = inspect.signature(self_check.check_answer).parameters
    said = [
        f"{key}={parameters.literal(value)}"
        for key, value in options.items()
        if value is not None and value != usual[key].default
    ]
    arguments = [f'"{name}"', name, literal(answer.expected), *said]
    line = f"check_answer({', '.join(arguments)})"
    if len(line) <= LONGEST:
        return line
    return "\n".join(["check_answer(", *(f"    {argument}," for argument in arguments), ")"])


def literal(value: Comparable) -> str:
    """Python that means `value`, with all of its digits; it needs NumPy as `np`."""
    match value.kind:
        case "array":
            source = f'np.array({_nested(value.value.tolist())}, dtype="{value.dtype}")'
            return source if value.value.size else f"{source}.reshape({value.value.shape})"
        case "float":
            return _nested(float(value.value))
        case "sequence":
            return f"[{', '.join(map(literal, value.items.values()))}]"
        case "mapping":
            items = (f"{key!r}: {literal(item)}" for key, item in value.items.items())
            return f"{{{', '.join(items)}}}"
    return repr(value.value)


def _nested(value: Any) -> str:
    """The numbers of nested lists; those that are not finite have no literal of their own."""
    if isinstance(value, list):
        return f"[{', '.join(map(_nested, value))}]"
    if isinstance(value, complex):
        return f"complex({_nested(value.real)}, {_nested(value.imag)})"
    return re.sub("nan|inf", r"np.\g<0>", repr(value))
