# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 64}
#     parameters:
#       size: {min: 2, max: 16}
#       gpus: {min: 0, max: 64}
# ---

# %% [markdown] lang="en"
# # PyTorch: what it is, how to install it, where to learn it
#
# A neural network is a long chain of array operations, improved step by step with the help of
# derivatives. Without a library, each new network would need new derivatives and new code for the
# GPU. **PyTorch** provides both, from Python.
#
# By the end of this lesson, PyTorch will run on your machine, you will have checked it yourself,
# and you will know where to look things up.

# %% [markdown] lang="zh"
# # PyTorch：简介、安装与学习资源
#
# 神经网络是一长串数组运算，靠导数一步一步地改进。如果没有现成的库，每换一个网络，就要重新推导导数，重新编写 GPU 程序。**PyTorch** 替我们做好这两件事，我们只需写 Python。
#
# 学完这一课，你会在自己的机器上装好 PyTorch，亲自检查它能否正常工作，还会知道到哪里查资料。

# %% tags=["parameters"]
size: int = 4  # size of the vectors and matrices
gpus: int = 0  # GPUs in your machine; the pipeline of the course fills this in

# %% tags=["setup"]
import platform

import matplotlib.pyplot as plt
import numpy as np
import torch

# %% [markdown] lang="en"
# ## Where it comes from
#
# **Torch7** (2011) was a library for machine learning. Its core was written in C and C++, and its
# users programmed in a small language, Lua. But many scientists preferred Python. Therefore a group
# at Facebook AI Research (FAIR) gave that core a Python interface, and added **autograd**, which
# computes derivatives. The result is PyTorch, public since January 2017.

# %% [markdown] lang="zh"
# ## 它从哪里来
#
# **Torch7**（2011 年）是一个机器学习库：核心用 C 和 C++ 编写，用户则使用一种小巧的语言 Lua。可是许多科研人员更习惯 Python。于是 Facebook 人工智能研究院（FAIR）的一个小组给这个核心配上了 Python 接口，并加入了计算导数的 **autograd**（自动求导）。这就是 PyTorch，2017 年 1 月公开发布。

# %% [markdown] lang="en"
# Since then, PyTorch has replaced the old core step by step with its own C++ core, the tensor
# library ATen. For version 1.0, in 2018, Caffe2, another framework from Facebook, was merged into
# PyTorch; its code has since been removed. Since September 2022, PyTorch has belonged not to a
# single company but to the PyTorch Foundation, a part of the Linux Foundation.
#
# > **If your notes say** that PyTorch is "a Python implementation of Torch, which is written in
# > Lua", correct them: Lua was only the language in which Torch's users programmed. The core of
# > Torch was written in C and C++.

# %% [markdown] lang="zh"
# 后来，旧的核心逐步换成了 PyTorch 自己的 C++ 核心，即张量库 ATen。2018 年，为推出 1.0 版，Facebook 的另一个框架 Caffe2 并入 PyTorch；Caffe2 的代码如今已经移除。2022 年 9 月起，PyTorch 不再属于某一家公司，而是归 PyTorch 基金会（隶属 Linux 基金会）所有。
#
# > **如果笔记上写着**“PyTorch 是基于 Lua 编写的 Torch 库的 Python 实现”：请改正。Lua 只是 Torch 的用户编程用的语言，Torch 的核心是用 C 和 C++ 写的。


# %% tags=["figure"]
def block(x, y, width, text, color, ink="white"):
    panel.add_patch(plt.Rectangle((x, y), width, 0.8, color=color))
    panel.text(x + width / 2, y + 0.4, text, color=ink, ha="center", va="center")


figure, panel = plt.subplots(figsize=(7, 2.2), layout="constrained")
dark, light = "#1d3557", "#a9c6de"
events = ["Torch7", 1, 2011], ["PyTorch", 3.6, 2017], ["PyTorch 1.0", 6.1, 2018]
for name, x, year in [*events, ["PyTorch Foundation", 8.5, 2022]]:
    panel.text(x, 2.75, name, ha="center", va="center", weight="bold")
    panel.text(x, 2.25, year, ha="center", va="center", color="#6c7a89")
block(0, 1, 2, "Lua", "#8a6a4d")
block(2.6, 1, 2, "Python", "#c2571a")
block(5.2, 1, 4.7, "Python", "#c2571a")
block(0, 0, 2, "C, C++", light, dark)
block(2.6, 0, 2, "C, C++, autograd", light, dark)
block(5.2, 0, 4.7, "C++: ATen, autograd", dark)
for x in (2.05, 4.65):
    panel.annotate("", (x + 0.5, 0.9), (x, 0.9), arrowprops={"arrowstyle": "->"})
panel.set(xlim=(-0.05, 10), ylim=(-0.1, 3.1))
panel.axis("off")
plt.show()

# %% [markdown] lang="en"
# **Figure.** Above, the language in which users write; below, the core that computes. From Torch7 to
# PyTorch, the language changed and autograd was added. From version 1.0 on, PyTorch's own core
# replaced the old one step by step.

# %% [markdown] lang="zh"
# **图**。上层是用户编程所用的语言，下层是负责计算的核心。从 Torch7 到 PyTorch，换了语言，新增了 autograd；从 1.0 版起，核心逐步换成 PyTorch 自己的。

# %% [markdown] lang="en"
# ## Why people choose it
#
# **It reads like NumPy.** If you know NumPy's arrays, you can start at once. Here are three lines of
# NumPy: a matrix with 2 rows and `size` columns, a matrix of ones, and their product.

# %% [markdown] lang="zh"
# ## 为什么选用它
#
# **写法与 NumPy 相近**。会用 NumPy 的数组，就能上手。先看三行 NumPy：一个 2 行 `size` 列的矩阵，一个全一矩阵，以及两者的乘积。

# %% check="in_numpy"
a = np.arange(2.0 * size).reshape(2, size)
b = np.ones((size, 2))
a @ b  # (2, 2)

# %% [markdown] lang="en"
# Here are the same three lines in PyTorch. Predict what will differ.

# %% [markdown] lang="zh"
# 再用 PyTorch 写同样的三行。猜一猜，哪里会不同？

# %% check="in_torch"
a = torch.arange(2.0 * size).reshape(2, size)
b = torch.ones(size, 2)
a @ b  # (2, 2)

# %% [markdown] lang="en"
# The numbers are equal, but the object is called `tensor`. One difference cannot be seen here: how
# much memory the numbers take. Predict the number of bytes for `size` ones.

# %% [markdown] lang="zh"
# 数值相同，但得到的对象叫 `tensor`（张量）。还有一处不同在这里看不出来：这些数占多少内存。以 `size` 个 1 为例，猜一猜各占多少字节。

# %% check="bytes_taken"
np.ones(size).nbytes, torch.ones(size).nbytes

# %% [markdown] lang="en"
# By default, a floating-point number takes 8 bytes in NumPy and 4 in PyTorch, half the memory. At
# the end of this lesson you will see two things that NumPy cannot do: run the same code on a GPU,
# and compute derivatives.

# %% [markdown] lang="zh"
# 默认情况下，一个浮点数在 NumPy 里占 8 个字节，在 PyTorch 里占 4 个，内存省了一半。还有两件事是 NumPy 做不到的：让同样的代码在 GPU 上运行，以及求导。这一课的最后就会看到。

# %% [markdown] lang="en"
# **You see each step.** PyTorch executes each operation as soon as Python reaches it. This is
# called **eager execution**. Therefore you can use `print` and a debugger as in any other program,
# and a traceback points to the right line.
# Here is a function of three lines, and a target that has one element too many. Which line will
# the traceback point to?

# %% [markdown] lang="zh"
# **每一步都看得见**。Python 执行到哪一行，PyTorch 就算到哪一行，这叫**即时执行**（eager execution）。所以可以用 `print` 和调试器，报错也会指向出错的那一行。下面的函数有三行，而传入的 `target` 多了一个元素。报错会指向哪一行？


# %%
def squared_error(x, target):
    prediction = 3 * x  # (size,)
    difference = prediction - target  # (size,)
    return (difference**2).sum()  # ()


# %% check="shape_bug" raises="RuntimeError"
x = torch.arange(float(size))  # 0, 1, ..., size - 1
squared_error(x, target=2 * torch.arange(size + 1.0) + 1)

# %% [markdown] lang="en"
# The first arrow points to the call, the second to the subtraction, and the last line names both
# lengths. We repair the target. Predict the result for $x = 0, 1, 2, \dots$: because
# the target is $t = 2x + 1$, the differences are $3x - t = x - 1$. Then square them and add them
# up.

# %% [markdown] lang="zh"
# 第一个箭头指向调用，第二个指向减法那一行；最后一行给出了两个长度。我们把 `target` 改正过来。对 $x = 0, 1, 2, \dots$ 预测结果：因为 $t = 2x + 1$，所以差是 $3x - t = x - 1$，然后平方、求和。

# %% check="repaired"
target = 2 * x + 1  # (size,)
squared_error(x, target)

# %% [markdown] lang="en"
# There is no error any more. Is the number right, too? Go through the function line by line, as a
# debugger would, and look at each intermediate value.

# %% [markdown] lang="zh"
# 不再报错了。那么这个数对不对呢？像调试器那样逐行执行，看看每一个中间值。

# %% check="step_by_step"
prediction = 3 * x  # (size,)
difference = prediction - target  # (size,)
prediction, difference, (difference**2).sum()

# %% [markdown] lang="en"
# Where speed matters more than seeing each step, `torch.compile` turns a function into faster
# code. This is optional, and nothing in this course needs it.
#
# **It hides little.** You can use tensors, autograd, layers and optimizers independently of each
# other, and a training loop is a `for` loop that you write yourself (lesson 4).

# %% [markdown] lang="zh"
# 如果更在意速度，可以用 `torch.compile` 把函数编译成更快的代码。这只是一个选项，本课程用不到。
#
# **封装少**。张量、自动求导、网络层、优化器都可以单独使用；训练循环就是自己写的一个 `for` 循环（见第 4 课）。

# %% [markdown] lang="en"
# **You are not alone.** PyTorch is widely used in research and in industry, like TensorFlow and
# JAX, the two frameworks that began at Google. It is open source, and more and more papers come with
# PyTorch code. Many libraries build on it, so you need not start from scratch: torchvision for
# images, torchaudio for sound, Transformers for text, PyTorch Geometric for graphs, Lightning for
# training loops. There is official documentation, and there are tutorials and a forum.

# %% [markdown] lang="zh"
# **使用者多**。PyTorch 在学术界和工业界都应用广泛，同类框架还有出自 Google 的 TensorFlow 和 JAX。它是开源的，越来越多的论文附有 PyTorch 代码。许多扩展库以它为基础，不必重复造轮子：torchvision 处理图像，torchaudio 处理声音，Transformers 处理文本，PyTorch Geometric 处理图结构数据，Lightning 组织训练循环。它还有官方的文档、教程和论坛。

# %% [markdown] lang="en"
# ## Installing it
#
# PyTorch 2.13 needs Python 3.10 or newer, and the tools of this course need 3.11. First make an
# environment for this course alone, so that its versions do not conflict with those of your other
# projects:
#
# ```bash
# python3 -m venv course
# source course/bin/activate
# ```
#
# On Windows: `py -m venv course`, then `course\Scripts\activate`.

# %% [markdown] lang="zh"
# ## 安装
#
# PyTorch 2.13 要求 Python 3.10 或更新的版本，本课程的工具要求 3.11。先为本课程建一个单独的环境，免得软件版本与其他项目冲突：
#
# ```bash
# python3 -m venv course
# source course/bin/activate
# ```
#
# 在 Windows 上：先 `py -m venv course`，再 `course\Scripts\activate`。

# %% [markdown] lang="en"
# **Linux without a GPU.** Take the CPU build from PyTorch's own index, because it is much smaller:
#
# ```bash
# pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
# pip install numpy matplotlib jupyterlab jupytext
# ```
#
# **macOS** and **Windows.** Leave out `--index-url …`. On macOS there is one build, for Apple silicon
# (M1 or later); it can use the Mac's GPU under the name `"mps"`. On Windows the plain command
# installs the CPU build.

# %% [markdown] lang="zh"
# **没有 GPU 的 Linux 机器**：从 PyTorch 自己的软件源安装 CPU 版，体积小得多：
#
# ```bash
# pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
# pip install numpy matplotlib jupyterlab jupytext
# ```
#
# **macOS 和 Windows**：不写 `--index-url …`。macOS 上只有一种版本，用于 Apple 芯片（M1 及以后），它能使用 Mac 的 GPU，设备名是 `"mps"`。在 Windows 上，这样安装的是 CPU 版。

# %% [markdown] lang="en"
# **Linux with an NVIDIA GPU.** The plain command installs the CUDA build, a download of several
# gigabytes:
#
# ```bash
# pip install torch==2.13.0
# pip install numpy matplotlib jupyterlab jupytext
# ```
#
# It contains CUDA 13, so you only need NVIDIA's driver, version 580 or newer (`nvidia-smi` shows the
# version). CUDA 13 no longer supports GPUs older than Turing: for a V100 or a GTX 10xx, and for
# an older driver, add the option `--index-url` with the address
# `https://download.pytorch.org/whl/cu126`. On Windows, add the option too, with the address that
# ends in `cu130`. For AMD GPUs there are ROCm builds for Linux; pytorch.org shows the command.

# %% [markdown] lang="zh"
# **有 NVIDIA GPU 的 Linux 机器**：直接安装即可。这样装上的是 CUDA 版，要下载几个 GB：
#
# ```bash
# pip install torch==2.13.0
# pip install numpy matplotlib jupyterlab jupytext
# ```
#
# 它自带 CUDA 13，我们只需装好 580 或更新版本的 NVIDIA 驱动（用 `nvidia-smi` 查看）。CUDA 13 不再支持比 Turing 更早的 GPU：如果是 V100 或 GTX 10xx，或者驱动较旧，就加上选项 `--index-url`，地址为 `https://download.pytorch.org/whl/cu126`。在 Windows 上也要加这个选项，地址末尾是 `cu130`。AMD 的 GPU 在 Linux 上有 ROCm 版，安装命令见 pytorch.org。

# %% [markdown] lang="en"
# **uv** does the same, and can choose the build that fits your driver:
#
# ```bash
# uv venv course
# source course/bin/activate
# uv pip install torch==2.13.0 --torch-backend=auto
# uv pip install numpy matplotlib jupyterlab jupytext
# ```
#
# `--torch-backend=cpu` asks for the CPU build. Older tutorials use conda, but PyTorch's official
# conda channel [was discontinued](https://github.com/pytorch/pytorch/issues/138506).

# %% [markdown] lang="zh"
# 用 **uv** 也可以，它还能按驱动自动挑选版本：
#
# ```bash
# uv venv course
# source course/bin/activate
# uv pip install torch==2.13.0 --torch-backend=auto
# uv pip install numpy matplotlib jupyterlab jupytext
# ```
#
# `--torch-backend=cpu` 表示要 CPU 版。较早的教程会提到 conda，但 PyTorch 的官方 conda 频道[已经停用](https://github.com/pytorch/pytorch/issues/138506)。

# %% [markdown] lang="en"
# **If the download is slow**, a mirror near you can help. Some mirrors copy the general package index,
# PyPI, whose Linux build is the CUDA build; others copy PyTorch's own index with all its builds.
# A mirror can be outdated or incomplete, so check the version afterwards. The Chinese edition of
# this lesson lists mirrors in China.

# %% [markdown] lang="zh"
# **在中国大陆下载太慢时**，可以改用镜像站。下面的地址大家常用，但镜像可能滞后、不全或停止服务，装好后请核对版本；有疑问时以官方源为准。
#
# | 镜像站 | 内容 | 给 `pip install torch==2.13.0` 加上 |
# |---|---|---|
# | 清华大学 | PyPI（在 Linux 上是 CUDA 版） | `-i https://pypi.tuna.tsinghua.edu.cn/simple` |
# | 南京大学 | PyTorch 官方源的各种版本 | `-i https://mirrors.nju.edu.cn/pytorch/whl/cpu` |
# | 上海交通大学 | PyTorch 官方源的各种版本 | `-i https://mirror.sjtu.edu.cn/pytorch-wheels/cpu` |
# | 阿里云 | PyTorch 官方源的各种版本 | `-f https://mirrors.aliyun.com/pytorch-wheels/cpu` |
#
# 要 CUDA 版，就把 `cpu` 换成 `cu130` 或 `cu126`。用 `-f` 时，还要在版本号后写明是哪一种，例如 `torch==2.13.0+cpu` 或 `torch==2.13.0+cu130`，否则 pip 可能从 PyPI 选中另一种。其余软件包（numpy 等）从清华或阿里云的 PyPI 镜像安装即可。

# %% [markdown] lang="en"
# ## Checking the installation
#
# Do not trust an installation before you have checked it. The next cell prints what PyTorch finds.
# On Linux and Windows, `CUDA None` together with `ROCm None` means a build without support for
# NVIDIA and AMD GPUs, usually the CPU build: it finds no such GPU even if there is one. The
# accelerator is the device that this build can use besides the CPU: `cuda` for NVIDIA and also for
# AMD (ROCm), `mps` on a Mac, `xpu` for Intel, and `None` if there is no such device.

# %% [markdown] lang="zh"
# ## 检查安装结果
#
# 装好之后要检查一遍。在 Linux 和 Windows 上，`CUDA` 和 `ROCm` 都是 `None`，表示这一版不支持 NVIDIA 和 AMD 的 GPU，通常就是 CPU 版：即使机器上有这样的 GPU，它也找不到。accelerator（加速器）是这个版本除 CPU 之外能用的设备：NVIDIA 的 GPU 是 `cuda`，AMD 的（ROCm）也叫 `cuda`，Mac 上是 `mps`，Intel 的是 `xpu`；没有这样的设备时显示 `None`。

# %%
print("Python ", platform.python_version())
print("PyTorch", torch.__version__)
print("CUDA   ", torch.version.cuda)
print("ROCm   ", torch.version.hip)
print("accelerator", torch.accelerator.current_accelerator(check_available=True))
print("threads", torch.get_num_threads())
print("GPUs   ", torch.cuda.device_count())
for i in range(torch.cuda.device_count()):
    gpu = torch.cuda.get_device_properties(i)
    print(f"cuda:{i}  {gpu.name}, {gpu.total_memory / 2**30:.1f} GiB")

# %% [markdown] lang="en"
# The part of the version after the `+` is the build, such as `cpu` or `cu130`. The part before it
# must be the version that this course was written for.

# %% [markdown] lang="zh"
# 版本号中 `+` 后面的部分表示装的是哪一种构建（build），例如 `cpu` 或 `cu130`；前面的部分应当与本课程所用的版本号一致。

# %% check="version"
torch.__version__.split("+")[0]

# %% [markdown] lang="en"
# Can PyTorch use an NVIDIA or AMD GPU, and how many are there? (`torch.accelerator.is_available()`
# checks for accelerators of any kind.)

# %% [markdown] lang="zh"
# PyTorch 能使用 NVIDIA 或 AMD 的 GPU 吗？能用几个？（`torch.accelerator.is_available()` 检查的是任意一种加速器。）

# %% check="accelerator"
torch.cuda.is_available()

# %% check="device_count"
torch.cuda.device_count()

# %% [markdown] lang="en"
# If an NVIDIA GPU is missing here, check in this order: Does `nvidia-smi` list it? Does the `CUDA`
# line above show a version? If it shows `None`, install the CUDA build. If it shows 13, is the
# driver 580 or newer? If not, update the driver or install the `cu126` build.

# %% [markdown] lang="zh"
# 如果少了 NVIDIA 的 GPU，按这个顺序查：`nvidia-smi` 列出它了吗？上面的 `CUDA` 一行是版本号吗？如果是 `None`，就改装 CUDA 版。如果是 13，驱动是 580 或更新的版本吗？不是就更新驱动，或者改装 `cu126` 版。

# %% [markdown] lang="en"
# ## The first computation, on each device
#
# Finding a device does not prove that it works. Therefore the CPU and each GPU counted above
# compute something whose result we know: the sum $1 + 2 + \dots + n = n(n+1)/2$.

# %% [markdown] lang="zh"
# ## 在每个设备上做第一次计算
#
# 找得到设备，不等于它能用。所以让 CPU 和上面数到的每个 GPU 都算一个答案已知的式子：$1 + 2 + \dots + n = n(n+1)/2$。

# %% check="first_sum"
devices = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
{d: torch.arange(1, size + 1, device=d).sum() for d in devices}

# %% [markdown] lang="en"
# Then each device multiplies a matrix $A$ by itself, the kind of work that GPUs are made for. The
# element in row $i$ and column $j$ of the product $C$ is
#
# $$C_{ij} = \sum_{k} A_{ik} A_{kj}$$

# %% [markdown] lang="zh"
# 再让每个设备计算矩阵 $A$ 与它自己的乘积 $C$，这正是 GPU 最擅长的计算。$C$ 的第 $i$ 行第 $j$ 列的元素是
#
# $$C_{ij} = \sum_{k} A_{ik} A_{kj}$$


# %% check="first_product"
def square(d):
    matrix = torch.arange(float(size**2), device=d).reshape(size, size)
    return matrix @ matrix


{d: square(d) for d in devices}

# %% [markdown] lang="en"
# Finally, something that NumPy cannot do. Let $y = \sum_i x_i^2$. How fast does $y$ grow when one
# $x_i$ grows? By calculus, $\partial y / \partial x_i = 2 x_i$. PyTorch finds this derivative by
# itself; lesson 3 explains how.

# %% [markdown] lang="zh"
# 最后是 NumPy 做不到的事。设 $y = \sum_i x_i^2$，某个 $x_i$ 增大时，$y$ 增大得多快？由微积分可知，$\partial y / \partial x_i = 2 x_i$。PyTorch 自己就能求出来；怎样求，是第 3 课的内容。


# %% check="first_gradient"
def gradient(d):
    x = torch.arange(float(size), device=d, requires_grad=True)
    (x**2).sum().backward()
    return x.grad


{d: gradient(d) for d in devices}

# %% [markdown] lang="en"
# Each device has added, multiplied and differentiated, and all results are exact. The installation
# works.

# %% [markdown] lang="zh"
# 每个设备都做了求和、矩阵乘法与求导，结果完全正确。安装成功。

# %% [markdown] lang="en"
# ## Where to learn more
#
# 1. [PyTorch documentation](https://docs.pytorch.org/docs/stable/): every function, with examples.
# 2. [PyTorch tutorials](https://docs.pytorch.org/tutorials/): the official tutorials. Most of them
#    open in Google Colab, so you can run the code in your browser while you read.
# 3. [PyTorch forum](https://discuss.pytorch.org/): PyTorch's developers answer questions there, too.
# 4. [Dive into Deep Learning](https://d2l.ai/), by Zhang, Lipton, Li and Smola: a book whose code you
#    can run, with video lectures by Mu Li (in Chinese).

# %% [markdown] lang="zh"
# ## 学习资源
#
# 1. [PyTorch 官方文档](https://docs.pytorch.org/docs/stable/)：每个函数都有说明和例子。
# 2. [PyTorch 官方教程](https://docs.pytorch.org/tutorials/)：大多数都可以在 Google Colab 里打开，边读边运行。
# 3. [PyTorch 官方论坛](https://discuss.pytorch.org/)：PyTorch 的开发者也在这里回答问题。
# 4. [《动手学深度学习》](https://zh.d2l.ai/)：阿斯顿·张、扎卡里·立顿、李沐、亚历山大·斯莫拉著，书中的代码都能运行；李沐的课程录像在 B 站和 YouTube 上都有。

# %% [markdown] lang="en"
# And three collections, maintained by volunteers:
#
# 5. [Awesome-pytorch-list](https://github.com/bharathgs/Awesome-pytorch-list): libraries, and
#    implementations of papers.
# 6. [PyTorch handbook](https://github.com/zergtant/pytorch-handbook), in Chinese.
# 7. [Awesome-PyTorch-Chinese](https://github.com/INTERMT/Awesome-PyTorch-Chinese): resources in
#    Chinese.

# %% [markdown] lang="zh"
# 还有三份由志愿者维护的资源汇总：
#
# 5. [Awesome-pytorch-list](https://github.com/bharathgs/Awesome-pytorch-list)：扩展库与论文实现。
# 6. [PyTorch 手册](https://github.com/zergtant/pytorch-handbook)：中文入门手册。
# 7. [Awesome-PyTorch-Chinese](https://github.com/INTERMT/Awesome-PyTorch-Chinese)：中文资源。

# %% [markdown] lang="en"
# ## What to remember
#
# - Give each project its own environment, and install one build in it: CPU, CUDA or ROCm.
# - After installing, look at `torch.__version__`, `torch.version.cuda` and
#   `torch.cuda.device_count()`.
# - Then compute, on each device, something whose result you know.

# %% [markdown] lang="zh"
# ## 要点
#
# - 一个项目一个环境，其中只装一种版本：CPU、CUDA 或 ROCm。
# - 装好之后先看：`torch.__version__`、`torch.version.cuda`、`torch.cuda.device_count()`。
# - 然后在每个设备上算一个答案已知的式子。

# %% [markdown] lang="en"
# ## Exercises
#
# Replace each `...` with your own code.

# %% [markdown] lang="zh"
# ## 练习
#
# 把每一处 `...` 换成你自己的代码。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. How many bytes?
#
# A matrix of ones has `size` rows and `size` columns. How many bytes do its numbers take in NumPy,
# and how many in PyTorch? Don't create the matrix: give two formulas in `size`.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 多少字节？
#
# 一个 `size` 行 `size` 列的全一矩阵，全部元素在 NumPy 里共占多少字节，在 PyTorch 里又共占多少？不必创建这个矩阵，写出两个含 `size` 的算式即可。

# %% tags=["exercise"]
matrix_bytes = ..., ...  # NumPy, PyTorch
matrix_bytes

# %% tags=["solution"] check="matrix_bytes"
matrix_bytes = 8 * size**2, 4 * size**2
matrix_bytes

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. One sum, two ways
#
# Compute $1^2 + 2^2 + \dots + m^2$ for $m$ = `size`, without a loop: first with `**` and `sum`,
# then with `@` alone. Hint: how does `@` compute an element from a row and a column?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 一个和，两种算法
#
# 取 $m$ = `size`，不用循环，计算 $1^2 + 2^2 + \dots + m^2$：先用 `**` 和 `sum`，再只用 `@`。提示：`@` 是怎样用一行和一列算出一个元素的？

# %% tags=["exercise"]
n = torch.arange(size) + 1  # 1, 2, ..., size
by_sum = ...
by_product = ...
squares = by_sum, by_product
squares

# %% tags=["solution"] check="squares"
n = torch.arange(size) + 1  # 1, 2, ..., size
by_sum = (n**2).sum()
by_product = n @ n
squares = by_sum, by_product
squares

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. A steeper curve
#
# Let $y = \sum_i x_i^3$. Find $\partial y / \partial x_i$ by calculus, on paper. Then let PyTorch
# find it, and compare.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 更陡的曲线
#
# 设 $y = \sum_i x_i^3$。先在纸上用微积分求出 $\partial y / \partial x_i$，再让 PyTorch 来求，两相比较。

# %% tags=["exercise"]
x = torch.arange(float(size), requires_grad=True)
y = ...
...  # back from y to x
steepness = x.grad
steepness

# %% tags=["solution"] check="steepness"
x = torch.arange(float(size), requires_grad=True)
y = (x**3).sum()
y.backward()
steepness = x.grad
steepness

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - Let `size` be 16. Are the elements of the product still exact? A `float32` represents integers of
#   up to 24 binary digits exactly.
# - Make `target` too short instead of too long. Then give it length 1: why is there no error now?
# - Write `print(difference)` into `squared_error`, and call it again.

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - 把 `size` 改成 16。乘积的元素仍然精确吗？`float32` 可以精确表示不超过 24 个二进制位的整数。
# - 刚才的 `target` 太长，这次把它改得太短。再把长度改为 1：为什么这时不报错？
# - 在 `squared_error` 里加一行 `print(difference)`，再调用一次。
