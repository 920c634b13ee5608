"""The text of the handouts and of the course page, in both languages."""

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_suffix(".toml")


@functools.cache
def translations(language: str) -> Mapping[str, str]:
    """The text of `translations.toml` in one language, by key."""
    table = tomllib.loads(FILE.read_text("utf-8"))
    return {key: texts[language] for key, texts in table.items()}
