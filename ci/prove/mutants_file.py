"""The TOML file of the course's mutants: it names some, and declares others equivalent."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ci.errors import CourseError, suggest
from ci.lesson.lesson import Lesson
from ci.lesson.parameters import Value
from ci.prove.mutants import Mutant, generate
from ci.prove.operators import Change

NAMED = "named"
TABLES = {  # the keys that an entry must have, and those that it may have
    "mutant": ({"lesson", "text", "replacement", "check"}, {"file", "nth", "parameters"}),
    "equivalent": ({"lesson", "place", "text", "reason"}, {"file", "replacement"}),
    "extra_parameters": ({"lesson", "parameters"}, set[str]()),
    "excluded": ({"file", "reason"}, set[str]()),
}


class MutantsFile:
    """A file of mutants. Raises CourseError for a file that cannot be read, naming the entry."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        try:
            self._tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise CourseError(f"{path.name}: {error}") from None
        for table, entries in self._tables.items():
            if table not in TABLES:
                raise CourseError(f"{path.name}: '{table}'{suggest(table, list(TABLES))}")
            required, optional = TABLES[table]
            for number, entry in enumerate(entries, start=1):
                if wrong := required ^ (entry.keys() - optional):
                    raise self._error(table, number, f"'{min(wrong)}' missing or unknown")

    @property
    def excluded(self) -> dict[str, str]:
        """The files that are not mutated, each with its reason."""
        return {entry["file"]: entry["reason"] for entry in self._tables.get("excluded", [])}

    def extra_parameters(self, lesson: Lesson) -> list[dict[str, Value]]:
        """The parameters with which a lesson is run again, for mutants that its defaults miss."""
        return [e["parameters"] for _, e, _ in self._entries("extra_parameters", [lesson])]

    def named(self, lessons: Sequence[Lesson]) -> list[Mutant]:
        """The mutants that the file names for these lessons.

        Raises CourseError for a text that is missing, or that occurs several times in an entry
        without `nth`, and for a check that the lesson does not have.
        """
        return [self._named(*entry) for entry in self._entries("mutant", lessons)]

    def generated(self, lessons: Sequence[Lesson]) -> list[Mutant]:
        """The mutants that the operators make; those that the file declares equivalent are marked.

        Raises CourseError for a declaration that fits no mutant.
        """
        mutants = list(generate(lessons, self.excluded))
        for number, entry, lesson in self._entries("equivalent", lessons):
            file = entry.get("file", lesson.path.name)
            declared = [i for i, m in enumerate(mutants) if m.file == file and _fits(entry, m)]
            if not declared:
                fault = f"no mutant of lessons/{file} [{entry['place']}] changes '{entry['text']}'"
                raise self._error("equivalent", number, f"{fault}: correct the entry or remove it")
            for i in declared:
                mutants[i] = replace(mutants[i], equivalent=entry["reason"])
        return mutants

    def _entries(
        self, table: str, lessons: Sequence[Lesson]
    ) -> list[tuple[int, Mapping[str, Any], Lesson]]:
        """The entries of a table that are about these lessons, numbered from 1."""
        return [
            (number, entry, lesson)
            for number, entry in enumerate(self._tables.get(table, []), start=1)
            for lesson in lessons
            if lesson.name.partition("_")[0] == entry["lesson"]
        ]

    def _named(self, number: int, entry: Mapping[str, Any], lesson: Lesson) -> Mutant:
        file, searched, check = entry.get("file", lesson.path.name), entry["text"], entry["check"]
        path = lesson.path.parent / file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        starts = [found.start() for found in re.finditer(re.escape(searched), text)]
        nth = entry.get("nth", 1)
        if not 1 <= nth <= len(starts) or (len(starts) > 1 and "nth" not in entry):
            fault = f"'{searched}' occurs {len(starts)} times in lessons/{file} (check '{check}')"
            raise self._error("mutant", number, fault)
        names = [known.name for known in lesson.checks]
        if check not in names:
            fault = f"{lesson.name} has no check '{check}'{suggest(check, names)}"
            raise self._error("mutant", number, fault)
        start = starts[nth - 1]
        change = Change(start, start + len(searched), entry["replacement"], NAMED)
        parameters = entry.get("parameters", {})
        return Mutant(file, text, change, (lesson.name,), check, check, parameters)

    def _error(self, table: str, number: int, fault: str) -> CourseError:
        return CourseError(f"{self._name}: {table} {number}: {fault}")


def _fits(entry: Mapping[str, Any], mutant: Mutant) -> bool:
    """Whether an entry declares a mutant; without a replacement it declares all of its lines."""
    after = entry.get("replacement", mutant.after)
    return (entry["place"], entry["text"], after) == (mutant.place, mutant.before, mutant.after)
