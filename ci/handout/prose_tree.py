"""The tree of a text as pandoc reads it, changed into what every handout can show.

The HTML tags that Markdown writers use become nodes, callouts get a title in the language of their
text, and what is left loads nothing and contains no markup.
"""

import json
import re
import string
from collections.abc import Callable, Iterator
from html import escape, unescape
from typing import Any
from urllib.parse import quote

from ci.handout.dialect import ATTACHMENT, LESSON_LINK

Node = Any  # of pandoc's tree: a list, a scalar, or {"t": kind, "c": content}

WEB = ("http://", "https://", "mailto:")
NO_ATTRIBUTES = ["", [], []]
TAGS = {
    **{"sub": "Subscript", "sup": "Superscript", "u": "Underline", "kbd": "kbd"},
    **{"b": "Strong", "strong": "Strong", "i": "Emph", "em": "Emph"},
    **{"s": "Strikeout", "del": "Strikeout", "details": "details"},
}
CALLOUTS = {
    "note": {"en": "Note", "zh": "说明"},
    "tip": {"en": "Tip", "zh": "提示"},
    "important": {"en": "Important", "zh": "重要"},
    "warning": {"en": "Warning", "zh": "警告"},
    "caution": {"en": "Caution", "zh": "小心"},
}
HAN = re.compile("[\u4e00-\u9fff]")


def callout_title(kind: str, text: str) -> str:
    """The title of a callout, in Chinese if its text has a Chinese character."""
    return CALLOUTS[kind]["zh" if HAN.search(text) else "en"]


def nodes(tree: Node) -> Iterator[Node]:
    """The nodes of a tree, in order."""
    return (part for part in _parts(tree) if type(part) is dict and "t" in part)


def lists(tree: Node) -> Iterator[list[Node]]:
    """The lists of nodes in a tree: the blocks of a text, the words of a paragraph."""
    for part in _parts(tree):
        if type(part) is list and part and all(type(n) is dict and "t" in n for n in part):
            yield part


def _parts(tree: Node) -> list[Node]:
    """The lists and dictionaries of a tree, each before its parts; generators are slower."""
    found: list[Node] = []

    def collect(part: Node) -> None:
        found.append(part)
        for child in part.values() if type(part) is dict else part:
            if type(child) is dict or type(child) is list:
                collect(child)

    collect(tree)
    return found


def with_tags(part: Node) -> Node:
    """A tree in which the known HTML tags are nodes; others stay raw HTML."""
    return mapped(part, with_tags) if isinstance(part, dict) else _paired(mapped(part, with_tags))


def mapped(part: Node, change: Callable[[Node], Node]) -> Node:
    """A list or dictionary with its own lists and dictionaries changed."""
    if isinstance(part, dict):
        return {key: change(n) if type(n) in (dict, list) else n for key, n in part.items()}
    return [change(n) if type(n) in (dict, list) else n for n in part]


def _paired(children: list[Node]) -> list[Node]:
    done: list[Node] = []
    waiting: list[tuple[Node, str, list[Node]]] = []
    for child in children:
        tag = _tag(child)
        if tag in ("br", "br/", "br /"):
            done.append({"t": "LineBreak"})
        elif tag.startswith("<summary"):
            words = unescape(re.sub(r"<[^>]*>", "", tag))
            done.append(_div("summary", [{"t": "Para", "c": [{"t": "Str", "c": words}]}]))
        elif tag in TAGS:
            waiting.append((child, tag, done))
            done = []
        elif waiting and tag == f"/{waiting[-1][1]}":
            content = done
            _, name, done = waiting.pop()
            done.append(_element(TAGS[name], content))
        else:
            done.append(child)
    for opening, _, before in reversed(waiting):
        done = [*before, opening, *done]
    return done


def _tag(node: Node) -> str:
    """What a raw node has between `<` and `>`; a summary whole; empty for other nodes."""
    if not isinstance(node, dict) or node.get("t") not in ("RawInline", "RawBlock"):
        return ""
    text = node["c"][1].strip()
    if text.startswith("<summary"):
        return str(text)
    return text[1:-1].strip().lower().removesuffix(" open") if text.startswith("<") else ""


def _element(kind: str, content: list[Node]) -> Node:
    if kind == "kbd":
        return {"t": "Span", "c": [["", ["kbd"], []], content]}
    return _div("details", content) if kind == "details" else {"t": kind, "c": content}


def _div(kind: str, blocks: list[Node]) -> Node:
    return {"t": "Div", "c": [["", [kind], []], blocks]}


def tame(node: Node) -> Node:
    """A node that loads nothing, contains no markup, and links only to the web and to lessons."""
    match node.get("t"):
        case "RawInline":
            return {"t": "Str", "c": node["c"][1]}
        case "RawBlock":
            return {"t": "Para", "c": [{"t": "Str", "c": " ".join(node["c"][1].split())}]}
        case "Image" if not node["c"][2][0].startswith(ATTACHMENT):
            return {"t": "Span", "c": [NO_ATTRIBUTES, node["c"][1]]}
        case "Link" if not is_link(node["c"][2][0]):
            return {"t": "Span", "c": [NO_ATTRIBUTES, node["c"][1]]}
        case "Header":
            return {"t": "Header", "c": [node["c"][0], NO_ATTRIBUTES, node["c"][2]]}
    return node


def is_link(target: str) -> bool:
    """Whether a link stays one in a handout: it leads to the web or to a lesson."""
    return target.startswith(WEB) or bool(LESSON_LINK.fullmatch(target))


def for_target(node: Node, target: str) -> Node:
    """A node as `target` (html, typst or plain) writes it."""
    match node.get("t"):
        case "Link" if lesson := LESSON_LINK.fullmatch(node["c"][2][0]):
            suffix = "pdf" if target == "typst" else "html"
            return {"t": "Link", "c": [*node["c"][:2], [f"{lesson[1]}.{suffix}", ""]]}
        case "Link" if target == "typst":  # the PDF prints the address, in any font
            address = quote(node["c"][2][0], safe=string.punctuation)
            return {"t": "Link", "c": [*node["c"][:2], [address, node["c"][2][1]]]}
        case "Image" if target in ("html", "typst"):
            words = " ".join(_words(node["c"][1]))
            name = json.dumps(node["c"][2][0].removeprefix(ATTACHMENT))
            described = json.dumps(words, ensure_ascii=False)
            markup = f'<img src="{ATTACHMENT}{name[1:-1]}" alt="{escape(words)}">'
            if target == "typst":
                markup = f"#sheet.prose-picture({name}, {described});"
            return {"t": "RawInline", "c": [target, markup]}
        case "Span" if target == "typst" and node["c"][0][1] == ["kbd"]:
            around = [{"t": "RawInline", "c": ["typst", mark]} for mark in ("#sheet.key[", "]")]
            return {"t": "Span", "c": [NO_ATTRIBUTES, [around[0], *node["c"][1], around[1]]]}
        case "Div":
            return _block_for(node, target)
    return node


def _block_for(node: Node, target: str) -> Node:
    [kind] = node["c"][0][1][:1] or [""]
    content = node["c"][1]
    if kind in CALLOUTS:
        title = {"t": "Str", "c": callout_title(kind, json.dumps(content, ensure_ascii=False))}
        content = [{"t": "Para", "c": [{"t": "Strong", "c": [title]}]}, *content[1:]]
        if target == "typst":
            return _div("", [_raw("typst", "#sheet.callout["), *content, _raw("typst", "]")])
        return {"t": "Div", "c": [["", ["callout", kind], [["role", "note"]]], content]}
    if kind == "summary" and target == "html":
        words = escape(" ".join(_words(content)))
        return _raw("html", f"<summary>{words}</summary>")
    if kind == "details" and target == "html":
        return _div("", [_raw("html", "<details>"), *content, _raw("html", "</details>")])
    if kind == "details" and target == "typst":
        has_title = bool(content) and content[0].get("t") == "Div"
        summary = json.dumps(" ".join(_words(content[:has_title])), ensure_ascii=False)
        begin, end = _raw("typst", f"#sheet.later({summary})["), _raw("typst", "]")
        return _div("", [begin, *content[has_title:], end])
    if kind == "summary" and target != "typst":
        return {"t": "Para", "c": [{"t": "Strong", "c": content[0]["c"]}]}
    return node


def _raw(target: str, markup: str) -> Node:
    return {"t": "RawBlock", "c": [target, markup]}


def _words(tree: Node) -> Iterator[str]:
    for node in nodes(tree):
        if node["t"] in ("Str", "Code"):
            yield node["c"] if node["t"] == "Str" else node["c"][1]
