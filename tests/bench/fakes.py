"""Contenders that show a value at once, and one round of them."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench import benchmark
from tests.bench.report import Contender, Result, Row


def fake(name: str, value: str = "1", **fields: Any) -> Contender:
    """A contender that shows this value in its one notebook at once."""
    output = {"output_type": "execute_result", "data": {"text/plain": value}}
    cells = [{"metadata": {"check": "gradient"}, "outputs": [output]}]
    script = f"printf %s {shlex.quote(json.dumps({'cells': cells}))} > shown"
    return replace(Contender(name, name, script, results="shown"), **fields)


def measure(work: Path, *contenders: Contender, **fields: Any) -> Result:
    """One round of these contenders."""
    row = replace(Row("r", "a row", contenders), **fields)
    return benchmark.measure(row, work, rounds=1)
