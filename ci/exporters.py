"""The two nbconvert exporters of the handouts, HTML and PDF, and the words their templates say.

They set a notebook that `ci.handout.prepare` made, and any other one as well. What comes from a
notebook is data in both: escaped text in HTML, a string literal in Typst, whatever it looks like.
"""

import base64
import functools
import hashlib
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nh3
import typst
from ipython_pygments_lexers import IPython3Lexer  # type: ignore[import-untyped]
from jinja2 import Environment
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter, TemplateExporter
from nbformat import NotebookNode
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from traitlets import default

from ci import markdown, paper
from ci.errors import CourseError
from ci.markdown import plain

TEMPLATES = Path(__file__).parent / "templates"

# What of an output is set, the first of these that it has. Widgets and scripts are not among them.
PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
MARKDOWN = ["text/markdown", "text/latex"]
HTML_KINDS = [*PICTURES, "text/html", *MARKDOWN, "text/plain"]
PDF_KINDS = [*PICTURES, *MARKDOWN, "text/plain", "text/html"]

CAPTIONS = ("**Figure", "**图")  # begin a caption, which follows its figure

# What a result's own HTML may bring along: a table, a few words in bold, nothing that loads.
HTML_TAGS = nh3.ALLOWED_TAGS - {"area", "h1", "h2", "img", "map"}
SCHEMES = {"http", "https", "mailto"}

# key: English, Chinese
WORDS = {
    "language": ("en", "zh-CN"),
    "course": ("PyTorch course", "PyTorch 课程"),
    "instructors": (
        "PyTorch course · instructors’ edition, with solutions",
        "PyTorch 课程 · 教师版，含参考答案",
    ),
    "theirs": (
        "Instructors’ edition, with solutions: not for students.",
        "教师版，含参考答案，请勿发给学生。",
    ),
    "sweep": ("Parameter sweep", "参数扫描"),
    "abstract": (
        "Each value with a ✓ in these handouts was computed on the machine named beside it, and "
        "compared with an expected value that was derived without PyTorch.",
        "讲义中每个带 ✓ 的值都由所注明的机器实际算出，并与不借助 PyTorch 推导出的预期值比较过。",
    ),
    "archive": ("All handouts in one file", "全部讲义打包下载"),
    "own": ("English", "中文"),
    "other": ("中文", "English"),
    "page": ("HTML", "网页"),
    "notebook": ("Notebook", "笔记本"),
    "exercises": ("Exercises", "练习"),
    "solutions": ("Solutions", "参考答案"),
    "hidden": (
        "The solution was executed and compared here; it stands in the instructors’ edition.",
        "参考答案已在此运行并核对，载于教师版。",
    ),
    "how to": (
        "In each exercise, put code of your own in the place of `...` and run the cell, then the "
        "check below it: it compares your value with the expected one. Run the cells above the "
        "first exercise before you start; PyTorch, NumPy and matplotlib are all they need.",
        "每道练习中，请把 `...` 换成自己的代码并运行，再运行下面的检查单元，"
        "它会把你的值与预期值比较。开始之前，请先运行第一道练习之前的所有单元；"
        "只需要 PyTorch、NumPy 和 matplotlib。",
    ),
    "files": (
        "The next cells write the course’s own modules beside this notebook.",
        "接下来的单元把本课程自己的模块写到笔记本旁边。",
    ),
    "figure": ("Figure, described in the text", "插图，说明见正文"),
    "figure code": ("Code of the figure", "插图的代码"),
    "checks": ("Checks", "检查项"),
    "checks say": (
        "Each value was read from this page's own run and compared with an expected value that was "
        "derived without PyTorch. The tolerance is relative to the largest expected value; "
        "the margin used is the share of it that the largest difference takes.",
        "每个值都取自本讲义的这次运行，并与不借助 PyTorch 推导出的预期值比较。"
        "容差相对于预期值的最大绝对值；已用容差是最大差异占容差的比例。",
    ),
    "no checks": ("no checks", "没有检查项"),
    "not verified": ("not verified", "未经验证"),
    "all verified": ("{} checks, all verified", "{} 个检查项，全部一致"),
    "some differ": ("{1} of {0} checks NOT verified", "{0} 个检查项中有 {1} 个未通过"),
    "check": ("check", "检查项"),
    "derivation": ("derivation", "推导"),
    "shown": ("shown", "显示值"),
    "expected": ("expected", "预期值"),
    "tolerance": ("tolerance", "容差"),
    "margin": ("margin used", "已用容差"),
    "exact": ("exact", "完全相等"),
    "rel": ("rel", "相对"),
    "abs": ("abs", "绝对"),
    "verified": ("verified", "一致"),
    "given": ("given", "给定"),
    "as given": ("given, not verified", "给定值，未经核对"),
    "differs": ("mismatch", "不一致"),
    "missing": ("missing", "缺失"),
    "invalid": ("invalid check", "无效的检查"),
    "agreement": ("Agreement of the runs", "各次运行的一致程度"),
    "agreement say": (
        "Two runs are compared with each other wherever they must have the same value, though they "
        "computed it in another way. Each cell is the largest difference between what they showed, "
        "relative to the largest expected value; = is equal to the bit, – nothing to compare.",
        "只要两次运行应当得到同一个值，不论计算方式有何不同，就把两者的显示值直接比较。"
        "表中是两者的最大差异，相对于预期值的最大绝对值；= 表示逐位相等，– 表示没有可比较的值。",
    ),
    "differ": ("The largest is {}, in {}: {} and {}.", "最大差异为 {}，见 {}：{} 与 {}。"),
    "compared": ("{} of {} checks were compared.", "{1} 个检查项中比较了 {0} 个。"),
    "environment": ("Environment", "运行环境"),
    "torch": ("PyTorch", "PyTorch"),
    "Python": ("Python", "Python"),
    "device": ("device", "设备"),
    "machine": ("machine", "机器"),
    "image": ("image", "镜像"),
    "date": ("date", "日期"),
    "parameters": ("parameters", "参数"),
    "duration": ("duration", "用时"),
    # On paper; {} is the number of a page.
    "contents": ("Contents", "目录"),
    "on page": ("page {}", "第 {} 页"),
    "of": ("of", "，容差"),
    "code on page": ("code: page {}", "代码：第 {} 页"),
    "for page": ("for page {}", "用于第 {} 页"),
    "figures' code": ("Code of the figures", "插图的代码"),
}


def words(language: str) -> dict[str, str]:
    """The handouts' words in `language`."""
    return {key: said[language == "zh"] for key, said in WORDS.items()}


def _content(output: NotebookNode, kinds: list[str]) -> tuple[str, str]:
    """The kind of what is to be set of an output, and that; an empty text for what can't be."""
    if output.output_type == "stream":
        return f"text/{output.name}", output.text.rstrip("\n")
    if output.output_type == "error":
        return "text/error", "\n".join(output.traceback)
    return next(
        ((kind, output.data[kind]) for kind in kinds if kind in output.data), ("text/plain", "")
    )


def _contents(notebook: NotebookNode, kinds: list[str]) -> Iterator[tuple[str, str]]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield _content(output, kinds)


def _bytes(kind: str, content: str) -> bytes:
    return content.encode() if kind == "image/svg+xml" else base64.b64decode(content)


def _file(content: str, kind: str) -> str:
    return f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.{PICTURES[kind]}"


class _Handouts(TemplateExporter):
    """What the two exporters share: where their templates are, and what these can say."""

    target: markdown.Target
    kinds: list[str]

    @default("extra_template_basedirs")
    def _extra_template_basedirs_default(self) -> list[str]:
        return [str(TEMPLATES)]

    @default("template_name")
    def _template_name_default(self) -> str:
        return self.target

    def from_notebook_node(
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The notebook in this format. Raises CourseError for what can't be set, by name."""
        texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
        texts += [content for kind, content in _contents(nb, self.kinds) if kind in MARKDOWN]
        handout = nb.metadata.get("handout", {})
        resources = {
            **(resources or {}),
            "prose": {
                text: Markup(markup) for text, markup in markdown.render(texts, self.target).items()
            },
            "handout": handout,
            "words": words(handout.get("language", "en")),
            "content": functools.partial(_content, kinds=self.kinds),
        }
        return super().from_notebook_node(nb, resources, **options)


class HandoutHTMLExporter(_Handouts, HTMLExporter):
    """One page that runs no script and loads nothing."""

    export_from_notebook = "Handout (HTML)"
    target = "html"
    kinds = HTML_KINDS

    def _create_environment(self) -> Environment:
        environment: Environment = super()._create_environment()
        environment.autoescape = True
        environment.filters |= {"code": _code, "plain": plain, "clean": _clean, "data": _data}
        return environment


def _code(source: str) -> Markup:
    markup = highlight(plain(source), IPython3Lexer(stripnl=False), HtmlFormatter(nowrap=True))
    return Markup(markup.rstrip("\n"))


def _clean(content: str) -> Markup:
    return Markup(nh3.clean(content, tags=HTML_TAGS, url_schemes=SCHEMES))


def _data(content: str, kind: str) -> str:
    """A picture as an address of its own; a script in an SVG never runs there."""
    return f"data:{kind};base64,{base64.b64encode(_bytes(kind, content)).decode()}"


class HandoutPDFExporter(_Handouts):
    """A4 pages, set by Typst."""

    export_from_notebook = "Handout (PDF)"
    target = "typst"
    kinds = PDF_KINDS
    output_mimetype = "application/pdf"

    @default("file_extension")
    def _file_extension_default(self) -> str:
        return ".pdf"

    @default("template_extension")
    def _template_extension_default(self) -> str:
        return ".typ.j2"

    def _create_environment(self) -> Environment:
        environment: Environment = super()._create_environment()
        environment.finalize = paper.literal
        environment.filters |= {"fold": paper.fold, "beside": paper.beside, "words": _words_of}
        environment.filters["file"] = _file
        return environment

    def from_notebook_node(  # type: ignore[override]  # a file of bytes, as nbconvert's own PDF
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **options: Any
    ) -> tuple[bytes, dict[str, Any]]:
        """The PDF file. Raises CourseError, with the cell, for a character that no font has."""
        captions = _captions(nb)
        spoken = markdown.spoken([nb.cells[index].source for index in captions.values()])
        resources = {**(resources or {}), "captions": captions, "spoken": spoken}
        source, resources = super().from_notebook_node(nb, resources, **options)
        pictures = {
            _file(content, kind): _bytes(kind, content)
            for kind, content in _contents(nb, self.kinds)
            if kind in PICTURES
        }
        about = resources["handout"]
        try:
            pdf = paper.handout(source, pictures, about.get("facts", {}).get("date", ""))
        except typst.TypstError as error:
            why, cell = paper.fault(error, nb.cells)
            place = about.get("places", {}).get(cell) or about.get("name", "the notebook")
            raise CourseError(f"{place}: {why}") from None
        return pdf, resources


def _captions(notebook: NotebookNode) -> dict[int, int]:
    """Of each cell that shows a picture, and of the caption that follows it, the index."""
    drawn = {
        index
        for index, cell in enumerate(notebook.cells)
        if any(_content(output, PDF_KINDS)[0] in PICTURES for output in cell.get("outputs", []))
    }
    return {
        index - 1: index
        for index, cell in enumerate(notebook.cells)
        if index - 1 in drawn and cell.source.startswith(CAPTIONS)
    }


def _words_of(content: str) -> str:
    """The words of a fragment of HTML."""
    return html.unescape(nh3.clean(content, tags=set()))
