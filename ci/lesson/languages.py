"""The languages of a lesson's prose: both, each text with its translation, or the one that the
header declares, as in `languages: [zh]`."""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ci.lesson.fault import ScriptError
from ci.lesson.node import NotebookNode

LANGUAGES = ("en", "zh")
NAMES = {"en": "English", "zh": "Chinese"}

# Code, formulas, comments, tags and addresses: the same in each language.
NO_PROSE = re.compile(
    r"(?ms)^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\1|\Z)|(`+).+?\2|\$\$.*?\$\$|\$[^$\n]+\$"
    r"|\\begin\{(\w+\*?)\}.*?\\end\{\3\}|\\\(.+?\\\)|\\\[.+?\\\]"
    r"|<!--.*?-->|<[^>\n]+>|\]\([^)\n]*\)|https?://\S+"
)
WORDS = {"en": re.compile(r"[^\W\d_\u2e80-\u9fff\uf900-\ufaff]{2,}"), "zh": re.compile("[一-鿿]")}
FEW = 6  # words: fewer do not tell a language, since each has names such as PyTorch
PER_WORD = 1.5  # Chinese characters per English word, in translations
LARGER = 3  # times: a text with so many more words has no whole translation


def declared(header: Mapping[str, Any]) -> tuple[str, ...]:
    """The languages that the header declares; both if it declares none."""
    value = header.get("languages", [*LANGUAGES])
    if not (isinstance(value, list) and value and all(value.count(word) == 1 for word in value)):
        raise ScriptError("header: languages must be a list: [en], [zh] or [en, zh]")
    for word in value:
        if word not in LANGUAGES:
            raise ScriptError(f"header: languages: {word!r} is not a language here: use en or zh")
    return tuple(language for language in LANGUAGES if language in value)


def faults(cells: Sequence[NotebookNode], languages: Sequence[str]) -> Iterator[ScriptError]:
    """The texts in another language than their cell or the header says; and the first text whose
    translation is missing, with the number of the others."""
    prose = [cell for cell in cells if cell.cell_type == "markdown"]
    wrong = [error for cell in prose if (error := _wrong_language(cell, languages))]
    yield from wrong
    if len(languages) == 1 or wrong:
        return
    if untranslated := [*_without_lang(prose), *_unpaired(cells)]:
        line, message, language = min(untranslated)
        more = len(untranslated) - 1
        others = f" (and of {more} more)" if more else ""
        yield ScriptError(message.format(others) + _ways_out(language), line)


def _ways_out(language: str) -> str:
    return f", or declare `languages: [{language}]` in the header, below `jupyter:` and `lesson:`"


def _wrong_language(cell: NotebookNode, languages: Sequence[str]) -> ScriptError | None:
    said, found, line = cell.metadata.get("lang"), _language(cell), cell.metadata.line
    if said in LANGUAGES and said not in languages:
        message = f'lang="{said}", but the header says languages: [{languages[0]}]: remove this '
        return ScriptError(f"{message}cell, or declare both languages", line)
    expected = said or (languages[0] if len(languages) == 1 else found)
    if found and expected in LANGUAGES and found != expected:
        why = f'its cell says lang="{said}"' if said else f"the header says languages: [{expected}]"
        message = f"this text is {NAMES[found]}, but {why}: translate it or change lang="
        return ScriptError(message, line)
    return None


def _without_lang(prose: Sequence[NotebookNode]) -> list[tuple[int, str, str]]:
    """The texts that would be on the pages of both languages; none if they are few words."""
    found = [cell for cell in prose if "lang" not in cell.metadata and any(_sizes(cell).values())]
    if sum(sum(_sizes(cell).values()) for cell in found) < FEW / 2:
        return []
    messages = []
    for cell in found:
        language = _language(cell) or _main_language(found)
        other = next(word for word in LANGUAGES if word != language)
        message = f'this text has no lang=: write lang="{language}", and add the {NAMES[other]}'
        messages.append((cell.metadata.line, f'{message} text{{}} with lang="{other}"', language))
    return messages


def _unpaired(cells: Sequence[NotebookNode]) -> list[tuple[int, str, str]]:
    """The texts that are not followed, or preceded, by their translation."""
    relevant = [cell for cell in cells if cell.cell_type == "code" or "lang" in cell.metadata]
    groups = [
        (language, [*group])
        for language, group in itertools.groupby(relevant, lambda cell: cell.metadata.get("lang"))
    ]
    found, position = [], 0
    while position < len(groups):
        language, texts = groups[position]
        after, translation = groups[position + 1] if position + 1 < len(groups) else (None, [])
        position += 1
        if language not in LANGUAGES:
            continue
        other = next(word for word in LANGUAGES if word != language)
        line = texts[0].metadata.line
        if after != other:
            what = f"this text has no {NAMES[other]} translation: add it{{}} in a cell with"
            found.append((line, f'{what} lang="{other}"', language))
            continue
        position += 1
        sizes = {language: word_count(texts, language), other: word_count(translation, other)}
        for short, long in (LANGUAGES, LANGUAGES[::-1]):
            if sizes[long] > max(20, LARGER * sizes[short]):
                what = f"the {NAMES[short]} text is much shorter than the {NAMES[long]} one"
                found.append((line, f"{what}: translate the rest{{}}", long))
    return found


def _language(cell: NotebookNode) -> str | None:
    """The language of a text, None for few words or a mixture."""
    sizes = _sizes(cell)
    if sizes["zh"] > sizes["en"]:
        return "zh"
    return "en" if sizes["en"] >= max(FEW, 4 * sizes["zh"]) else None


def _main_language(cells: Sequence[NotebookNode]) -> str:
    return "en" if word_count(cells, "en") >= word_count(cells, "zh") else "zh"


def word_count(cells: Sequence[NotebookNode], language: str) -> float:
    """The number of English words, or of Chinese characters as words."""
    count = sum(_sizes(cell)[language] for cell in cells)
    return count / PER_WORD if language == "zh" else count


def _sizes(cell: NotebookNode) -> Mapping[str, int]:
    return _count(cell.source)


@functools.cache
def _count(source: str) -> Mapping[str, int]:
    text = NO_PROSE.sub(" ", source)
    return {language: len(words.findall(text)) for language, words in WORDS.items()}
