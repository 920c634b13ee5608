"""Markdown as lessons are written elsewhere, rewritten in the one dialect that the handouts read.

Comments disappear, `\\(x\\)` and bare environments become formulas between dollars, the callouts of
MyST, MkDocs, Bootstrap and GitHub become one, `<a>` and `<img>` become Markdown, and a local
picture becomes an attachment of its cell, as the notebook format has it. Code stays as it is.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from urllib.parse import unquote

from ci.lesson.node import NotebookNode, copied

PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
PICTURES[".svg"] = "image/svg+xml"
ATTACHMENT = "attachment:"
CAPTIONS = ("**Figure", "**图")  # a caption follows its figure and begins with one of these
LESSON_LINK = re.compile(r"(?:\./)?([\w-]+)\.(?:py|ipynb)(?:#\S*)?")

# The kinds of callouts elsewhere, and the five of GitHub that pandoc reads.
CALLOUTS = {
    **dict.fromkeys(("note", "info", "abstract", "summary", "seealso", "admonition"), "NOTE"),
    **dict.fromkeys(("tip", "hint", "success", "example", "question", "exercise"), "TIP"),
    **dict.fromkeys(("important",), "IMPORTANT"),
    **dict.fromkeys(("warning", "attention"), "WARNING"),
    **dict.fromkeys(("caution", "danger", "error", "failure", "bug"), "CAUTION"),
}
_KIND = "|".join(CALLOUTS)
ALERTS = {"info": "note", "success": "tip", "warning": "warning", "danger": "danger"}
ENVIRONMENTS = "align|aligned|alignat|equation|gather|multline|eqnarray|[pbBvV]?matrix|cases|array"

# What begins a list or a heading in Markdown also where it continues a formula.
BLOCK_LINE = re.compile(r"\n[ \t]*(?=(?:[-+*]|\d+[.)])[ \t]|(?:=+|-+|\*{3,})[ \t]*(?:\n|$))")
WORD = r"(?<![\\{A-Za-z])[A-Za-z]{2,}[ ]"  # one outside of TeX commands

_SAME = r"(?:(?!\n[ \t]*\n).)"  # a character of the same paragraph

# In this order at each place of a text: what comes first in it hides what is inside.
CONSTRUCTS = re.compile(
    rf"""(?msx)
    ^[ ]{{0,3}}(?P<fence>[`~]{{3,}}(?=\{{)|:{{3,}})[ ]*\{{?\.?(?P<kind>{_KIND})\}}?
        [ ]*(?P<title>[^\n]*)\n
        (?P<body>.*?)(?:^[ ]{{0,3}}(?P=fence)[ \t]*$|\Z)
    | ^(?:!!!|\?\?\?\+?)[ ]+(?P<mkdocs>{_KIND})(?:[ ]+"(?P<named>[^"\n]*)")?[ \t]*\n
        (?P<indented>(?:(?:[ ]{{4}}[^\n]*|[ \t]*)(?:\n|\Z))+)
    | ^[ ]{{0,3}}(?P<math>[`~:]{{3,}})\{{math\}}[ \t]*\n(?P<equation>.*?)^(?P=math)[ \t]*$
    | (?P<code>^[ ]{{0,3}}(?P<ticks>`{{3,}}|~{{3,}})[^\n]*\n
            .*?(?:^[ ]{{0,3}}(?P=ticks)[`~]*[ \t]*$|\Z)
        | (?<!`)(?P<tick>`+)(?!`){_SAME}+?(?<!`)(?P=tick)(?!`))
    | (?P<comment><!--.*?-->)
    | (?P<display>\$\$.*?\$\$)
    | ^[ ]{{0,3}}\$[ \t]*\n(?P<lone>(?:(?!\n[ \t]*\n)[^$])+?)\n[ ]{{0,3}}\$[ \t]*$
    | (?:\\\\|\\)\[(?P<brackets>{_SAME}+?)(?:\\\\|\\)\]
    | (?:\\\\|\\)\((?P<parentheses>{_SAME}+?)(?:\\\\|\\)\)
    | (?P<inline>(?<![\\$])\$(?=\S)(?:\\.|[^$\\\n]|\n(?![ \t]*\n))+?\$(?!\d))
    | (?P<loose>(?<![\\$])\$(?![^$\n]*{WORD})[ \t]+(?:\\.|[^$\\\n])+?\$(?!\d))
    | (?P<bare>\\begin\{{(?P<environment>(?:{ENVIRONMENTS})\*?)\}}.*?\\end\{{(?P=environment)\}})
    | <div\b[^>]*\balert-(?P<alert>info|success|warning|danger)\b[^>]*>(?P<alerted>.*?)</div>
    | <a\b(?P<link>[^>]*)>(?P<label>.*?)</a>
    | (?P<folded></?details\b[^>\n]*>|<summary\b[^>]*>.*?</summary>)
    | <img\b(?P<attributes>[^>]*)>
    | (?P<picture>!\[(?P<words>[^\]\n]*)\]\([ ]*(?P<file><[^>\n]*>|[^\s)]+)(?:[ ]+"[^"\n]*")?[ ]*\))
        (?:\{{[^}}\n]*\}})?
    """
)


def canonical(text: str) -> str:
    """`text` in the dialect of the handouts; a text in it is returned as it is."""

    def rewrite(found: re.Match[str]) -> str:
        part = found.groupdict()
        if part["kind"]:
            return _callout(part["kind"], part["title"].strip(' "'), part["body"])
        if part["mkdocs"]:
            body = re.sub(r"(?m)^ {4}", "", part["indented"])
            return _callout(part["mkdocs"], part["named"] or "", body) + "\n\n"
        if part["comment"]:
            return ""
        if part["folded"]:
            return f"\n\n{part['folded']}\n\n"
        if part["bare"]:
            return f"$${part['bare']}$$"
        if (formula := part["brackets"] or part["equation"]) is not None:
            return f"$${formula.strip()}$$"
        if part["parentheses"]:
            return f"${part['parentheses'].strip()}$"
        if part["alert"]:
            return _alert(part["alert"], part["alerted"])
        if part["link"] is not None:
            return _link(part["link"], part["label"])
        if part["display"] and "%" not in part["display"]:
            return BLOCK_LINE.sub(" ", part["display"])
        if part["lone"]:
            return f"$${BLOCK_LINE.sub(' ', part['lone'])}$$"
        if formula := part["inline"] or part["loose"]:
            return _inline(formula, _in_table(found))
        if part["attributes"]:
            return _image(part["attributes"], found[0])
        return part["picture"] or found[0]

    return CONSTRUCTS.sub(rewrite, text)


def _inline(formula: str, in_table: bool) -> str:
    """A formula in a line, without the space beside its dollars that others allow."""
    tex = BLOCK_LINE.sub(" ", formula[1:-1])
    if in_table:
        tex = tex.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
    is_formula = re.search(r"[\\^_=]", tex) or " " not in tex.strip()
    if in_table or (is_formula and not re.search(WORD, tex)):
        tex = tex.strip()
    return f"${tex}$"


def _in_table(found: re.Match[str]) -> bool:
    """Whether a formula is in a row of a table."""
    line = found.string[found.string.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0]
    return line.lstrip().startswith("|")


def _callout(kind: str, title: str, body: str) -> str:
    heading = [f"**{title}**", ""] if title else []
    # MyST has options between the first line and the text.
    lines = re.sub(r"\A(?::[\w-]+:[^\n]*\n)+", "", body).strip("\n").split("\n")
    quoted = "\n".join(f"> {line}".rstrip() for line in [*heading, *canonical_lines(lines)])
    return f"> [!{CALLOUTS[kind]}]\n{quoted}"


def canonical_lines(lines: list[str]) -> list[str]:
    """The lines of a part of a text, rewritten on their own."""
    return canonical("\n".join(lines)).split("\n")


def _image(attributes: str, tag: str) -> str:
    """An `<img>` as a picture of Markdown; the tag itself if it names no file."""
    named = dict(re.findall(r"""(src|alt)\s*=\s*["']([^"']*)["']""", attributes))
    return f"![{named.get('alt', '')}](<{named['src']}>)" if "src" in named else tag


def _alert(level: str, body: str) -> str:
    """A box of Bootstrap, which Jupyter shows, as a callout of the kind that its heading names."""
    heading = re.match(r"\s*<(h\d|b|strong)>\s*(.*?)[\s:.!]*</\1>[\s:.]*(?:<br ?/?>)?", body, re.S)
    title = heading[2] if heading else ""
    kind = title.lower() if title.lower() in CALLOUTS else ALERTS[level]
    title = "" if title.lower() in CALLOUTS else title
    return "\n\n" + _callout(kind, title, dedent(body[heading.end() if heading else 0 :])) + "\n\n"


def _link(attributes: str, label: str) -> str:
    """An `<a>` as a link of Markdown, and a target of links as its words."""
    label = " ".join(canonical(label).split())
    target = re.search(r"""href\s*=\s*["']([^"']*)["']""", attributes)
    if target and label:
        return f"[{label}](<{target[1]}>)"
    return label


def texts(cells: Sequence[NotebookNode], folder: Path) -> list[str]:
    """The prose of a lesson in `folder`, cell by cell, with pictures as attachments."""
    prose = copied([cell for cell in cells if cell.cell_type == "markdown"])
    for cell in prose:
        attach(cell, folder)
    return [cell.source for cell in prose]


def attach(cell: NotebookNode, folder: Path) -> None:
    """Rewrite a Markdown cell in the dialect, with its local pictures, which are files below
    `folder`, as attachments. Pictures that `fault` refuses stay as they are."""
    attachments = dict(cell.get("attachments", {}))

    def attached(found: re.Match[str]) -> str:
        target = found["file"]
        if target is None or picture_fault(target.strip("<>"), folder):
            return found[0]
        path = _path(target.strip("<>"), folder)
        content, kind = path.read_bytes(), path.suffix.lower()
        name = f"{hashlib.sha256(content).hexdigest()[:16]}{kind.replace('jpeg', 'jpg')}"
        attachments[name] = {PICTURES[kind]: base64.b64encode(content).decode()}
        return f"![{found['words']}]({ATTACHMENT}{name})"

    cell.source = CONSTRUCTS.sub(attached, canonical(cell.source))
    if attachments:
        cell.attachments = attachments


def _path(target: str, folder: Path) -> Path:
    return (folder / unquote(target)).resolve()


def picture_fault(target: str, folder: Path) -> str:
    """Why a picture can't be in the handouts; empty if it can."""
    if target.startswith(ATTACHMENT):
        return ""
    if re.match(r"[a-zA-Z][\w+.-]*:|//", target):
        return "a picture from elsewhere is not loaded: save it beside the lesson, or remove it"
    path = _path(target, folder)
    if not path.is_relative_to(folder.resolve()):
        return f"a picture must be a file below {folder.name}/: save it there, or remove it"
    if path.suffix.lower() not in PICTURES:
        return "a picture must be a PNG, JPEG or SVG file"
    return "" if path.is_file() else f"there is no such file below {folder.name}/: save it there"


def link_fault(target: str, folder: Path) -> str:
    """Why a link, which is not one to the web, can't be in the handouts; empty if it can."""
    if (lesson := LESSON_LINK.fullmatch(target)) and (folder / f"{lesson[1]}.py").is_file():
        return ""
    return "a link must lead to the web or to a lesson, as in 02_tensors.py: change or remove it"
