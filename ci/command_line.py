"""The command line, which Invoke parses, and how a command ends: with one line and a status.

tasks.py calls `install` when Invoke loads it, so that `invoke` and `python -m invoke` behave alike.
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from invoke import Exit, Program
from invoke.exceptions import ParseError
from invoke.parser import ParserContext

from ci.errors import CourseError, MachineError, UsageError, closest, suggest

POSITIONAL = "lessons"  # `invoke run 03` is `invoke run --lessons 03`
ENDLESS = re.compile(r"\d{4301}")  # Python reads no such number
HELP, VERSION = ("-h", "--help"), ("-V", "--version")

ADVICE = {
    errno.ENOSPC: "make room; invoke clean removes old runs",
    errno.EDQUOT: "make room; invoke clean removes old runs",
    errno.EACCES: "make it writable for this user",
    errno.EPERM: "make it writable for this user",
    errno.EROFS: "use a copy of the course on a file system that can be written",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use --jobs 1",
    errno.ENOMEM: "free memory, or use --jobs 1",
}


class CourseProgram(Program):
    """Invoke's program, with status 2 and one line for words that it cannot parse."""

    def parse_tasks(self) -> None:
        """Check the words after Invoke's own options, then let Invoke parse them."""
        try:
            if self.core.remainder and not self.args.complete.value:
                raise UsageError(f"-- {self.core.remainder}: remove the --")
            contexts = self._make_parser().contexts
            self.core.unparsed = list(arranged(self.core.unparsed, contexts, self.core[0]))
            if VERSION[1] in self.core.unparsed:
                self.print_version()
                raise Exit
            super().parse_tasks()
        except (UsageError, ParseError) as error:
            raise Exit(printable(str(error)), UsageError.status) from None

    def parse_cleanup(self) -> None:
        """Print help or the list of tasks, if asked to."""
        if self.args.complete.value:
            self._print_lessons(self.core.remainder.split())
        halp = self.args.help.value
        if halp and halp is not True and halp not in self.parser.contexts:
            message = f"--help {halp}: no such task{suggest(halp, list(self.parser.contexts))}"
            raise Exit(printable(message), UsageError.status)
        if (form := self.args["list-format"].value) not in ("flat", "nested", "json"):
            message = f"--list-format {form}: expected flat, nested or json"
            raise Exit(printable(message), UsageError.status)
        try:
            super().parse_cleanup()
            sys.stdout.flush()
        except BrokenPipeError:  # `invoke --list | head -1`
            discard_output()
            raise Exit from None
        except Exit as ended:
            raise Exit(ended.message, UsageError.status if ended.message else 0) from None

    def update_config(self, merge: bool = True) -> None:
        """Read Invoke's settings, from the file of `--config` and from the environment."""
        try:
            super().update_config(merge)
        except Exception as error:  # of any parser of a settings file
            message = f"Invoke's settings (--config, INVOKE_*): {' '.join(str(error).split())}"
            raise Exit(printable(message), UsageError.status) from None

    def _print_lessons(self, words: Sequence[str]) -> None:
        """For a shell that completes a command with lessons: their names, beside Invoke's words."""
        contexts = self.parser.contexts
        if any(POSITIONAL in contexts[word].args for word in words if word in contexts):
            for path in sorted(Path(self.collection.loaded_from, "lessons").glob("[!_.]*.py")):
                print(path.stem)

    def print_version(self) -> None:
        """Print the version of the course's pipeline, and Invoke's."""
        print(f"pytorch-course {version('pytorch-course')}, Invoke {self.version}")


def install(program: Program) -> None:
    """Give Invoke's running program the behaviour of CourseProgram."""
    program.__class__ = CourseProgram


def main() -> None:
    """The command `course`: `invoke`, whose own `--version` ends before it reads tasks.py."""
    CourseProgram(version=version("invoke"), binary="course").run()


def arranged(
    words: Sequence[str], contexts: dict[str, ParserContext], core: ParserContext
) -> Iterator[str]:
    """The words of a command line as Invoke wants them: a task, then options with their values.

    Raises UsageError for a task or an option that does not exist.
    """
    if any(ENDLESS.search(word) for word in words):
        raise UsageError("a number of more than 4300 digits: write a smaller one")
    task: ParserContext | None = None
    lessons: list[str] = []
    left, given = list(words), set[str]()
    while left:
        word = left.pop(0)
        if word.startswith("-") and len(word) > 1:
            yield from _option(word, left, task, core, given)
        elif word in contexts:
            yield from _lessons(lessons, given)
            lessons, given, task = [], set(), contexts[word]
            yield word
        elif task and POSITIONAL in task.args:
            lessons.append(word)
        elif task:
            raise UsageError(f"invoke {task.name} {word}: this command takes options alone")
        else:
            raise UsageError(f"invoke {word}: no such command{suggest(word, list(contexts))}")
    yield from _lessons(lessons, given)


def _lessons(lessons: list[str], given: set[str]) -> Iterator[str]:
    if not lessons:
        return
    if f"--{POSITIONAL}" in given:
        raise UsageError(f"{' '.join(lessons)}: name the lessons once, with --lessons or without")
    if not all(word.strip() for word in lessons):
        raise UsageError("an empty word is no lesson: leave it out to run all lessons")
    yield f"--{POSITIONAL}={','.join(lessons)}"


def _option(
    word: str, left: list[str], task: ParserContext | None, core: ParserContext, given: set[str]
) -> Iterator[str]:
    """The option `word` with its value, which may be the first of the words that are `left`."""
    name, equals, value = word.partition("=")
    flags = task.flags if task else {}
    if name in (*HELP, *VERSION) and not equals:
        yield HELP[1] if name in HELP else VERSION[1]
        return
    if name not in flags and not name.startswith("--") and name[2:] and f"-{name[1]}" in flags:
        name, rest = f"-{name[1]}", word[2:]  # `-psize=3`, or `-xq`
        equals, value = ("=", rest) if flags[name].takes_value else ("", "")
        if not equals:
            left.insert(0, f"-{rest}")
    if name not in flags:
        known = [*flags, *HELP, *VERSION]
        if not task:
            raise UsageError(f"{word}: no option of Invoke; options of a command come after it")
        raise UsageError(f"invoke {task.name} {name}: no such option{_suggest(name, known)}")
    option = flags[name]
    if not option.takes_value:
        if equals:
            raise UsageError(f"{word}: {name} takes no value")
        yield name
        return
    if not equals and not left:
        raise UsageError(f"{name}: needs a value; invoke --help {task.name if task else ''}")
    long = f"--{option.names[0]}" if len(option.names[0]) > 1 else name
    if long in given and option.kind is not list:
        raise UsageError(f"{long}: given twice")
    given.add(long)
    yield f"{name}={value if equals else left.pop(0)}"


def _suggest(name: str, known: list[str]) -> str:
    match = closest(name, known, likeness=0.7)
    return f"; did you mean '{match}'?" if match else suggest("", sorted(known))


def printable(text: str) -> str:
    """The text with escapes in place of what no terminal prints, such as halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def boundary(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn a fault of the course, the command line or the machine into a line and a status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal lacks is no fault
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except CourseError as error:
        raise Exit(printable(str(error)), error.status) from None
    except BrokenPipeError:
        discard_output()
        raise Exit("nobody reads the output any more: stopped", MachineError.status) from None
    except OSError as error:
        if not (line := machine_fault(error)):  # a library's own exception: a bug
            raise
        raise Exit(printable(line), MachineError.status) from None
    except KeyboardInterrupt as interrupt:
        raise Exit(str(interrupt) or interrupted, 1) from None


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def machine_fault(error: OSError) -> str:
    """An error of files and sockets in one line: where, what, and what to do; empty for others."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        _, target, why = error.args[0][0]  # the first of the files that could not be copied
        number = re.match(r"\[Errno (\d+)\]", str(why))
        code = int(number[1]) if number else 0
        error = OSError(code, os.strerror(code) if code else why, str(target))
    if error.errno is None:
        return ""
    advice = ADVICE.get(error.errno)
    line = f"{error.filename or 'the machine'}: {error.strerror}"
    return f"{line}: {advice}" if advice else line


def discard_output() -> None:
    """Send what is still printed nowhere, after the reader of a pipe has ended (`| head -1`)."""
    with contextlib.suppress(OSError, ValueError):  # not a file, in a test
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def go_on_unread() -> None:
    """Discard what is still printed, and say so."""
    discard_output()
    print("nobody reads the output any more; the command goes on", file=sys.stderr, flush=True)
