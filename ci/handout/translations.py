"""The words of the handouts and of the course page, in both languages."""

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
    "contents": ("Contents", "目录"),
    "skip": ("Skip to the text", "跳到正文"),
    "section": ("本节的中文版", "This section in English"),
    "before": ("Previous lesson", "上一课"),
    "after": ("Next lesson", "下一课"),
    "neighbours": ("Other lessons", "其他课"),
    "table": ("Table", "表格"),
    "output": ("Output", "输出"),
    "copy": ("Copy", "复制"),
    "copy code": ("Copy code", "复制代码"),
    "copied": ("Copied", "已复制"),
    "copy failed": ("Not copied", "未能复制"),
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
    "commit": ("commit", "提交"),
    "unverified": ("Not verified by this run", "这次运行没有核对的"),
    "no GPU": ("anything on a GPU: it ran on the CPU", "GPU 上的结果：它在 CPU 上运行"),
    "one GPU": ("communication between GPUs: there was one", "GPU 之间的通信：只有一块 GPU"),
    "one rank": (
        "communication between processes: there was one rank",
        "进程之间的通信：只有一个进程",
    ),
    "givens": (
        "the values marked ○, which were given: dtype, shape and finiteness alone",
        "标有 ○ 的给定值：只核对了元素类型、形状以及是否有限",
    ),
    "closeness": ("How close", "有多接近"),
    "closeness say": (
        "Each dot is a check that was compared within a tolerance, at the share of it that the "
        "largest difference took: beyond 1 the build fails. The other {} of {} checks have no "
        "tolerance: they agree exactly.",
        "每个点是一个按容差比较的检查项，位置是最大差异占容差的比例：超过 1 构建就失败。"
        "其余 {} 项（共 {} 项）没有容差，必须完全相等。",
    ),
    # On paper; {} is the number of a page.
    "on page": ("page {}", "第 {} 页"),
    "of": ("of", "，容差"),
    "code on page": ("code: page {}", "代码：第 {} 页"),
    "for page": ("for page {}", "用于第 {} 页"),
    "figures' code": ("Code of the figures", "插图的代码"),
}


def translations(language: str) -> dict[str, str]:
    """The handouts' words in `language`."""
    return {key: said[language == "zh"] for key, said in WORDS.items()}
