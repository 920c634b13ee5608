# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 1}
#     parameters:
#       rows: {min: 2, max: 64}
#       cols: {min: 2, max: 64}
#       size: {min: 2, max: 80}
#       samples: {min: 100, max: 1000000}
#       seed: {min: 0, max: 4294967295}
# ---

# %% [markdown] lang="en"
# # Tensors
#
# PyTorch stores pictures, sentences and sounds, and everything that a network learns from them, in
# one kind of object: the **tensor**.
#
# After this lesson you can read any shape, predict the shape of a sum before you run it, and say
# which line of code allocates memory and which does not. You can change the values below and run
# the lesson again: everything adapts, including the figures.

# %% [markdown] lang="zh"
# # 张量
#
# 图像、文字、声音，以及网络从中学到的一切，在 PyTorch 里都存放在同一种对象中：**张量**（tensor）。
#
# 学完这一课，你能读懂任何形状，不运行就能说出两个张量相加后的形状，还能判断哪一行代码会分配内存，哪一行不会。可以修改下面的参数值，再运行一遍：后面的内容连同插图都会随之变化。

# %% tags=["parameters"]
rows: int = 3  # length of the first axis, in joining and broadcasting
cols: int = 2  # length of the second axis; choose a value different from rows
size: int = 5  # length of the vectors x and y
samples: int = 10000  # how many random numbers are drawn
seed: int = 0  # seed of the random draws
device: str = "cpu"  # where the tensors live

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import torch

# %% [markdown] lang="en"
# ## From a scalar to a video
#
# A tensor is a grid of numbers of one kind. Each direction of the grid is an **axis**. The lengths
# of all axes form its **shape**, and the number of axes is its **number of dimensions**, `ndim`.
#
# A single temperature has no axis: it is a **scalar**. The temperatures of three days form a
# **vector**, and the temperatures of two cities on three days form a **matrix**. To select one
# element, give an **index** for each axis, counted from 0. How many axes does `matrix` have, what is
# its shape, and which temperature is `matrix[1, 2]`?

# %% [markdown] lang="zh"
# ## 从标量到视频
#
# 张量是由同一种类型的数排成的网格。网格的每个方向叫一个**轴**（axis），各轴的长度合起来叫**形状**（shape），轴的个数叫**维数**（`ndim`）。
#
# 单独一个气温没有轴，是**标量**；连续三天的气温组成**向量**；两座城市各三天的气温组成**矩阵**。要取出一个元素，就为每个轴给出一个**索引**（index），从 0 数起。`matrix` 有几个轴？形状是什么？`matrix[1, 2]` 是哪个气温？

# %% check="temperatures"
scalar = torch.tensor(21.5, device=device)  # ()
vector = torch.tensor([19.0, 21.5, 23.0], device=device)  # (day,)
days = [[19.0, 21.5, 23.0], [14.0, 18.5, 20.0]]
matrix = torch.tensor(days, device=device)  # (city, day)
scalar, vector, matrix, matrix.ndim, matrix.shape, matrix[1, 2]

# %% [markdown] lang="en"
# A colour **image** has one more axis: one matrix each for red, green and blue. PyTorch puts this
# **channel** axis first: (C, H, W), that is, channel, height, width.
#
# > **If your notes say** width, height, channel: PyTorch uses the opposite order.
#
# We paint 6 × 9 pixels: a blue sky and a golden sun, which is red with some green. Which elements
# of the red matrix are not zero?

# %% [markdown] lang="zh"
# 彩色**图像**再多一个轴：红、绿、蓝各一个矩阵。PyTorch 把这个**通道**（channel）轴放在最前面，形状是 (C, H, W)，即通道、高、宽。
#
# > **如果笔记上写着**“宽、高、通道”：PyTorch 的顺序正好相反。
#
# 我们来画一幅 6 × 9 像素的图：蓝天，加上一个金色的太阳，也就是红色里掺一些绿色。红色矩阵中哪些元素不是零？

# %% check="red"
image = torch.zeros(3, 6, 9, device=device)  # (C, H, W)
image[2] = 0.8  # blue, everywhere
for channel, level in enumerate([1.0, 0.7, 0.0]):  # the sun: red, some green, no blue
    image[channel, 1:4, 1:4] = level
image[0]  # (H, W)

# %% [markdown] lang="en"
# A network reads many images at a time, a **batch**: (N, C, H, W). A **video** is a sequence of
# images, so it has a time axis as well; a batch of videos is (N, T, C, H, W). `torch.stack` joins
# tensors of equal shape along a new first axis. In `clip`, `roll` moves the picture one pixel to
# the right from each frame to the next. How many axes does `video` have, and how long is each of
# them?

# %% [markdown] lang="zh"
# 网络一次读入许多幅图像，称为一个**批量**（batch），形状是 (N, C, H, W)。**视频**是图像的序列，所以又多一个时间轴；一批视频的形状是 (N, T, C, H, W)。`torch.stack` 把形状相同的张量沿一个新的轴叠起来，这个轴排在最前面。在 `clip` 中，`roll` 让每一帧的图像比前一帧右移一个像素。`video` 有几个轴？每个轴有多长？

# %% check="axes"
batch = torch.stack([image, image.flip(-1)])  # (N, C, H, W); flip mirrors
clip = torch.stack([image.roll(t, dims=-1) for t in range(4)])  # (T, C, H, W)
video = torch.stack([clip, clip.flip(-1)])  # (N, T, C, H, W)
scalar.shape, vector.shape, matrix.shape, image.shape, batch.shape, video.shape

# %% tags=["figure"]
figure, axes = plt.subplot_mosaic(
    [list("RGB.i.a.0123"), list("RGB.i.b.4567")],
    figsize=(7, 1.3),
    layout="constrained",
    width_ratios=[1, 1, 1, 0.2, 1, 0.2, 1, 0.2, 1, 1, 1, 1],
)
for key, color, channel in zip("RGB", ["Reds", "Greens", "Blues"], image, strict=True):
    axes[key].imshow(channel.cpu(), cmap=color, vmin=0, vmax=1)
pictures = [image, *batch, *video.flatten(0, 1)]  # (C, H, W) each
for key, picture in zip("iab01234567", pictures, strict=True):
    axes[key].imshow(picture.permute(1, 2, 0).cpu())  # matplotlib wants (H, W, C)
titles = {"R": "image[0]", "G": "image[1]", "B": "image[2]", "i": "image", "a": "batch"}
for key, title in (titles | {"0": "video[:, 0]", "3": "video[:, 3]"}).items():
    axes[key].set_title(title, fontsize=6.5, family="monospace")
for panel in axes.values():
    panel.set(xticks=[], yticks=[])
plt.show()

# %% [markdown] lang="en"
# **Figure.** From left to right: the three channels of `image`; the image that they form; the batch,
# two images along N (downwards); the video, two clips along N, with four frames each along T (to
# the right).

# %% [markdown] lang="zh"
# **图**。从左到右：`image` 的三个通道；三者合成的图像；批量，沿 N 轴（向下）有两幅图像；视频，沿 N 轴有两段，每段沿 T 轴（向右）有四帧。

# %% [markdown] lang="en"
# An index fixes one axis and keeps the others. `batch[1, 1, 3]` selects the second image (the
# mirrored one), the green channel in it, and there the row with index 3. `video[1, 3, 2, 3]`
# selects the mirrored clip, its fourth frame, the blue channel, and again the row with index 3.
# Only the axis W remains in each. Which elements belong to the sun?

# %% [markdown] lang="zh"
# 一个索引固定一个轴，其余的轴保留。`batch[1, 1, 3]` 取出第二幅图（左右翻转过的那幅）绿色通道中索引为 3 的一行；`video[1, 3, 2, 3]` 取出翻转过的那一段中第四帧的蓝色通道里索引为 3 的一行。两者都只剩下一个轴。哪几个元素属于太阳？

# %% check="pixels"
batch[1, 1, 3], video[1, 3, 2, 3]  # (W,) each

# %% [markdown] lang="en"
# ## Creating tensors
#
# `arange` counts from 0 up to its argument, but does not include it. All elements of a tensor have
# the same type, its **dtype**: an integer argument gives integers, and a floating-point argument
# gives floating-point numbers. The dtype decides which operations are possible later.

# %% [markdown] lang="zh"
# ## 创建张量
#
# `arange` 从 0 数起，数到参数为止，但不包含参数本身。张量的所有元素属于同一种类型，称为**数据类型**（dtype）：参数是整数，就得到整数；参数是浮点数，就得到浮点数。数据类型决定了这个张量以后能做哪些运算。

# %% check="arange"
torch.arange(size, device=device), torch.arange(float(size), device=device)

# %% [markdown] lang="en"
# A nested list becomes a tensor with one axis for each level of brackets. Count the brackets at the
# left before you look: is the shape (3, 3)?

# %% [markdown] lang="zh"
# 嵌套列表也能变成张量：有几层方括号，就有几个轴。先数一数最左边的方括号：下面的形状是 (3, 3) 吗？

# %% check="nested_shape"
torch.tensor([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], device=device).shape

# %% [markdown] lang="en"
# There are three opening brackets, so there are three axes, and the first has length 1.
#
# If you know only the shape, start with zeros or ones.

# %% [markdown] lang="zh"
# 左边有三个方括号，所以有三个轴，其中第一个轴的长度是 1。
#
# 如果只知道形状，可以先创建全零张量或全一张量。

# %% check="zeros_and_ones"
torch.zeros(rows, cols, device=device), torch.ones(rows, cols, device=device)

# %% [markdown] lang="en"
# The weights of a network start as random numbers. `randn` draws them from the **standard normal
# distribution**, which has mean 0 and standard deviation 1. `manual_seed` sets the state of the
# random number generator: the same seed gives the same numbers again, on the same kind of device
# and with the same release of PyTorch.
#
# We draw, start again from the same seed, and then draw twice. Which of `again` and `later` equals
# `draws`? And is the mean of the $n$ draws close to 0? The standard deviation of this mean is
# $1/\sqrt{n}$, so the mean very rarely lies more than $5/\sqrt{n}$ away from 0.

# %% [markdown] lang="zh"
# 网络的权重用随机数初始化。`randn` 从均值为 0、标准差为 1 的**标准正态分布**中抽样。`manual_seed` 设定随机数生成器的状态：在同一种设备、同一个 PyTorch 版本上，种子相同，抽到的数就相同。
#
# 先抽样一次，再从同一个种子重新开始，连抽两次。`again` 和 `later`，哪一个与 `draws` 相同？另外，$n$ 个样本的均值接近 0 吗？均值的标准差是 $1/\sqrt{n}$，所以均值偏离 0 极少超过 $5/\sqrt{n}$。

# %% check="same_seed"
torch.manual_seed(seed)
draws = torch.randn(samples, device=device)
torch.manual_seed(seed)
again = torch.randn(samples, device=device)
later = torch.randn(samples, device=device)
bound = 5 / samples**0.5
near_zero = abs(draws.mean().item()) <= bound
draws.shape, bound, near_zero, torch.equal(again, draws), torch.equal(later, draws)

# %% [markdown] lang="en"
# ## Arithmetic, element by element
#
# The arithmetic operators work **elementwise**: they combine the first element with the first, the
# second with the second, and so on. We apply five operators to two vectors of integers. Which of
# the results does not have an integer dtype?

# %% [markdown] lang="zh"
# ## 逐元素运算
#
# 算术运算符都是**逐元素**的：第一个元素对第一个元素，第二个对第二个，依此类推。对两个整数向量做五种运算，哪一种运算的结果不再是整数类型？

# %% check="arithmetic"
x = torch.arange(1, size + 1, device=device)  # 1, 2, ..., size
y = torch.full((size,), 2, device=device)  # 2, 2, ..., 2
x + y, x - y, x * y, x / y, x**y

# %% [markdown] lang="en"
# The fourth: dividing integers always gives `float32`, even if every quotient is an integer. The other
# four results keep the dtype `int64`.
#
# The exponential function $e^x$ is not the operator `**` but a function of its own, `exp`, which
# turns integers into `float32` as well. It grows fast: $e^{88}$ still fits into `float32`, but
# $e^{89}$ becomes `inf`, without an error.
#
# > **If your notes call** `exp` the power operator: that is `**`, as in `x**2` for $x^2$. `exp` is
# > a function, and its base is always $e$.

# %% [markdown] lang="zh"
# 第四个：整数相除总是得到 `float32`，即使每个商都是整数。其余四个结果仍是 `int64`。
#
# 指数函数 $e^x$ 不是运算符 `**`，而是单独的函数 `exp`，它也把整数变成 `float32`。指数函数增长极快：$e^{88}$ 还在 `float32` 的范围之内，$e^{89}$ 就变成了 `inf`，而且不报错。
#
# > **如果笔记上把 `exp` 叫作“幂运算”**：幂运算是运算符 `**`，例如 $x^2$ 写作 `x**2`；`exp` 是函数，它的底数总是 $e$。

# %% check="exponential"
torch.exp(x), torch.exp(torch.tensor([88, 89], device=device)).isinf()

# %% [markdown] lang="en"
# `sum` reduces a tensor to a scalar: $1 + 2 + \dots + n = n(n+1)/2$. The result is still a tensor,
# with shape `()`; `.item()` gives the Python number. With `dim=` you name the axis to sum over,
# and **the axis that you name disappears**: from (rows, cols), `dim=0` leaves one sum for each
# column.

# %% [markdown] lang="zh"
# `sum` 把张量归约为标量：$1 + 2 + \dots + n = n(n+1)/2$。结果仍是张量，形状是 `()`；用 `.item()` 可以取出 Python 的数。用 `dim=` 可以指定沿哪个轴求和，**指定哪个轴，哪个轴就消失**：形状是 (rows, cols) 时，`dim=0` 为每一列留下一个和。

# %% check="sums"
grid = torch.arange(rows * cols, device=device).reshape(rows, cols)
x.sum(), grid.sum(dim=0)  # (), (cols,)

# %% [markdown] lang="en"
# The mean of `x` raises an error. Read the last line of the error: what does PyTorch object to?

# %% [markdown] lang="zh"
# 求 `x` 的均值会报错。读一读报错信息的最后一行：PyTorch 不接受的是什么？

# %% check="integer_mean_fails" raises="RuntimeError"
x.mean()

# %% [markdown] lang="en"
# The mean of integers need not be an integer. Division and `exp` turn integers into `float32` by
# themselves, but `mean` does not, so you have to choose a dtype. (Negative powers of integers, such
# as `x**-1`, raise an error, too.)

# %% [markdown] lang="zh"
# 整数的均值不一定是整数。除法和 `exp` 会自动把整数变成 `float32`，`mean` 却不会，所以要自己选择数据类型。（整数的负数次幂，例如 `x**-1`，也会报错。）

# %% check="mean"
x.float().mean()

# %% [markdown] lang="en"
# ## Joining tensors
#
# `cat` **concatenates** tensors: it joins them end to end along an axis that they already have. Along
# axis 0, the rows of `lower` follow the rows of `upper`; along axis 1, the two matrices are placed
# side by side. Which numbers form the first row of each result?

# %% [markdown] lang="zh"
# ## 拼接与堆叠
#
# `cat` 做**拼接**：沿一个已有的轴，把张量首尾相接。沿轴 0 拼接，`lower` 的各行接在 `upper` 的各行之后；沿轴 1 拼接，两个矩阵左右并排。两个结果的第一行各由哪些数组成？

# %% check="concatenated"
upper = grid  # (rows, cols)
lower = grid + 100  # (rows, cols)
torch.cat((upper, lower), dim=0), torch.cat((upper, lower), dim=1)

# %% [markdown] lang="en"
# `cat` keeps the number of axes, whereas `stack` adds one: two matrices become the two pages of a
# book.

# %% [markdown] lang="zh"
# `cat` 不改变轴的个数，`stack`（**堆叠**）则多出一个轴：两个矩阵成了一本书的两页。

# %% check="stacked"
torch.stack((upper, lower)).shape  # (2, rows, cols)

# %% [markdown] lang="en"
# > **If your notes** concatenate two vectors with `dim=1`: a vector has only axis 0, so this raises
# > an error.

# %% [markdown] lang="zh"
# > **如果笔记上**用 `dim=1` 拼接两个向量：向量只有轴 0，所以会报错。

# %% check="cat_missing_axis" raises="IndexError"
torch.cat((x, y), dim=1)

# %% [markdown] lang="en"
# ## Broadcasting
#
# We want an addition table: a column of numbers $i$, a row of numbers $j$, and $i + j$ where they
# cross. In plain Python, this takes two loops. PyTorch does it with one `+`, although the shapes
# differ: the column is stretched to the right, and the row is stretched downwards. This is called
# **broadcasting**.

# %% [markdown] lang="zh"
# ## 广播机制
#
# 我们要做一张加法表：一列数 $i$，一行数 $j$，交叉处是 $i + j$。用纯 Python 写，需要两层循环。PyTorch 只用一个 `+` 就能做到，尽管两者形状不同：列向右扩展，行向下扩展。这就是**广播机制**。

# %% check="broadcast"
column = torch.arange(rows, device=device).reshape(rows, 1)
row = torch.arange(cols, device=device).reshape(1, cols)
column + row  # (rows, cols)

# %% [markdown] lang="en"
# The rule has three steps:
#
# 1. Write the shapes one below the other, **aligned at the right**.
# 2. Where an axis is missing at the left, put a 1.
# 3. Compare each pair of lengths: equal lengths stay, a 1 is stretched to the other length, and
#    anything else is an error.
#
# Predict the shape of (rows, 1) + (cols,), then look. The second shape has only one axis, which is
# below the 1 when the shapes are aligned at the right.

# %% [markdown] lang="zh"
# 规则分三步：
#
# 1. 把两个形状写成上下两行，**右端对齐**。
# 2. 左边缺少的轴补 1。
# 3. 逐轴比较长度：相等则保留，其中一个是 1 则扩展到另一个的长度，否则报错。
#
# 先预测 (rows, 1) + (cols,) 的形状，再看结果。后一个形状只有一个轴，右端对齐后，它与前一个形状中的 1 对应。

# %% check="broadcast_shape"
(column + torch.arange(cols, device=device)).shape

# %% [markdown] lang="en"
# There are no exceptions. A scalar broadcasts too: all its axes are missing. So does an empty tensor,
# which has an axis of length 0: the 1 of the other tensor becomes 0.
#
# > **If your notes say** that broadcasting needs tensors that are not empty: it does not.

# %% [markdown] lang="zh"
# 规则没有例外。标量也能广播：它一个轴也没有，缺少的轴全部补 1。空张量（有一个轴的长度是 0）同样可以广播，这时另一个张量在这个轴上的长度由 1 变成 0。
#
# > **如果笔记上说**“两个张量必须不为空”才能广播：其实没有这个限制。

# %% check="empty_and_scalar"
empty = torch.ones(0, cols, device=device)
(empty + row).shape, (column + scalar).shape

# %% [markdown] lang="en"
# Here is a mistake that everybody makes once. `table` has `rows` rows, and `offset` holds one number
# for each row, which we want to add to the whole row. Align the shapes at the right before you run
# the cell.

# %% [markdown] lang="zh"
# 下面是人人都会犯一次的错误。`table` 有 `rows` 行；`offset` 为每一行准备了一个数，要加到整行上。运行之前，先把形状右端对齐，看一看。

# %% check="broadcast_fails" raises="RuntimeError"
table = torch.zeros(rows, rows + cols, device=device)
offset = torch.arange(rows, device=device)  # one number for each row
table + offset

# %% [markdown] lang="en"
# When the shapes are aligned at the right, `offset` is matched with the columns. We reshape it to
# (rows, 1), so that it is matched with the rows.

# %% [markdown] lang="zh"
# 右端对齐后，`offset` 对应的是列。把它变成 (rows, 1) 的形状，就与行对应了。

# %% check="per_row"
table + offset.reshape(rows, 1)

# %% [markdown] lang="en"
# We were lucky to get an error. In a square table the lengths agree, so the numbers are added to the
# columns without any error. Compare this with the result above: here each *column* gets its number.

# %% [markdown] lang="zh"
# 这次报错，算是运气好。如果表格的行数与列数相等，这些数就会加到各列上，而且不报错。与上面的结果比较：这里是每一**列**加上一个数。

# %% check="square_is_silent"
torch.zeros(rows, rows, device=device) + offset


# %% tags=["figure"]
def draw_shapes(panel, *shapes):
    width = max(len(shape) for shape in shapes)
    lines = [[None] * (width - len(shape)) + list(shape) for shape in shapes]
    for x in range(width):
        lengths = {line[x] or 1 for line in lines}
        good = len(lengths - {1}) <= 1
        column = [line[x] for line in lines] + [max(lengths) if good else "×"]
        for y, length in zip([0, -1, -2.3], column, strict=True):
            box = plt.Rectangle((x - width, y), 0.86, 0.8, edgecolor="#1d3557")
            box.set_facecolor("#cfe3f2" if y == -2.3 else "white")
            box.set_linestyle("-" if length else "--")
            if not good:
                box.set(facecolor="#f6c6c6", edgecolor="#c1121f")
            panel.add_patch(box)
            panel.text(x - width + 0.43, y + 0.4, length or 1, ha="center", va="center")
    panel.text(-width - 0.5, -0.6, "+", ha="center", va="center", fontsize=13)
    panel.set(xlim=(-4, 0.2), ylim=(-2.4, 0.9), aspect="equal")
    panel.axis("off")


figure, panels = plt.subplots(1, 3, figsize=(7, 1.8), layout="constrained")
draw_shapes(panels[0], (rows, 1), (cols,))
draw_shapes(panels[1], (2, rows, cols), (rows, 1))
draw_shapes(panels[2], (rows, rows + cols), (rows,))
plt.show()

# %% [markdown] lang="en"
# **Figure.** Three sums: their shapes, aligned at the right, and below, in blue, the shape of the
# result. Dashed boxes are missing axes, taken as 1. In the red column, the two lengths differ and
# neither is 1, so the sum raises an error.

# %% [markdown] lang="zh"
# **图**。三个加法：上面是右端对齐的两个形状，下面蓝色的是结果的形状。虚线框是缺少的轴，当作 1。在红色的一列里，两个长度不相等，又都不是 1，所以报错。

# %% [markdown] lang="en"
# ## Where the elements are stored
#
# Models often fill the memory of a GPU, and then every copy counts. Three things are easy to confuse:
# the **name** `y`, the tensor **object** that it refers to, and the **memory** that holds the
# elements. `a is b` compares objects, that is, their `id()`. `data_ptr()` is the address of the
# memory. Two objects can share memory.
#
# An **in-place operation** writes into existing memory: `z[:] = …` keeps the object `z` and its
# memory, and replaces the elements.
#
# > **If your notes** compare `id(z)` before and after `z[:] = …`: `id` identifies the object, and
# > says nothing about the memory. Compare `data_ptr()`.

# %% [markdown] lang="zh"
# ## 元素存放在哪里
#
# 模型常常占满 GPU 的显存，这时每一份副本都不能忽视。有三样东西容易混淆：**名字** `y`，它所指的张量**对象**，以及存放元素的**内存**。`a is b` 比较的是对象，也就是它们的 `id()`；`data_ptr()` 是内存的地址。两个对象可以共用一块内存。
#
# **原地操作**写入已有的内存：`z[:] = …` 保留对象 `z` 和它的内存，只替换其中的元素。
#
# > **如果笔记上**比较 `z[:] = …` 前后的 `id(z)`：`id` 是对象的标识，并不能说明内存是否改变。应当比较 `data_ptr()`。

# %% check="in_place_value"
z = torch.zeros_like(y)
z[:] = x + y
z

# %% [markdown] lang="en"
# A **view** is another object that uses the same memory. We write through `flat` and look at `m`. Are
# they the same object? Do they have the same memory?

# %% [markdown] lang="zh"
# **视图**（view）是另一个对象，用的却是同一块内存。我们通过 `flat` 写入，再看 `m`：它们是同一个对象吗？用的是同一块内存吗？

# %% check="view_writes"
m = torch.zeros(rows, cols, device=device)
flat = m.view(-1)  # (rows * cols,)
flat[-1] = 7
m, flat is m, flat.data_ptr() == m.data_ptr()

# %% [markdown] lang="en"
# With `=`, a name moves to another object. With `+=`, the object stays, and every name for it sees
# the change. The function `run` executes one line of Python, so that we can compare such lines and
# draw the names, the objects and their memory.

# %% [markdown] lang="zh"
# 用 `=`，名字改指另一个对象；用 `+=`，对象不变，通过指向它的每个名字都能看到变化。函数 `run` 执行一行 Python 代码，这样就能比较这些写法，并画出名字、对象与内存的关系。


# %%
def run(statement, **names):
    """Execute one line of Python; return what each name refers to afterwards."""
    exec(statement, {"torch": torch}, names)
    return names


# %% tags=["figure"]
def heights(keys):  # from top to bottom; a single one in the middle
    return dict(zip(keys, [-0.75] if len(keys) == 1 else [0, -1.5], strict=True))


def draw_names(panel, names):
    at_object = heights({id(t): None for t in names.values()})
    at_memory = heights({t.data_ptr(): None for t in names.values()})
    arrow = {"arrowstyle": "->", "color": "#1d3557"}
    for (name, t), y in zip(names.items(), [0, -1.5], strict=True):
        o, m = at_object[id(t)], at_memory[t.data_ptr()]
        panel.text(0, y, name + " ", family="monospace", ha="right", va="center")
        panel.annotate("", (0.85, o), (0, y), arrowprops=arrow)
        panel.add_patch(plt.Circle((1, o), 0.24, color="#a9c6de"))
        panel.annotate("", (2.1, m), (1.15, o), arrowprops=arrow)
    for t in {t.data_ptr(): t for t in names.values()}.values():
        m = at_memory[t.data_ptr()]
        for k, number in enumerate(t.tolist()):
            panel.add_patch(plt.Rectangle((2 + 0.7 * k, m - 0.4), 0.7, 0.8, fill=False))
            panel.text(2.35 + 0.7 * k, m, number, fontsize=8, ha="center", va="center")
    panel.set(xlim=(-1.1, 4.2), ylim=(-2.3, 0.8), aspect="equal")
    panel.axis("off")


# %% tags=["figure"]
figure, panels = plt.subplots(1, 4, figsize=(7, 1.5), layout="constrained")
statements = ["old = y", "y = y + 10", "y += 10", "y = y.view(3)"]
for panel, statement in zip(panels, statements, strict=True):
    start = torch.tensor([1, 2, 3], device=device)
    draw_names(panel, run(statement, y=start, old=start))
    panel.set_title(statement, family="monospace", fontsize=9)
plt.show()

# %% [markdown] lang="en"
# **Figure.** Names, objects (circles) and memory (boxes). After `old = y`, both names refer to one
# object. From there, `y = y + 10` creates a new object with new memory; `y += 10` writes into the
# memory that both names see; `y.view(3)` creates a new object that uses the old memory.

# %% [markdown] lang="zh"
# **图**。名字、对象（圆）与内存（方格）。执行 `old = y` 之后，两个名字指向同一个对象。由此出发：`y = y + 10` 产生新对象和新内存；`y += 10` 写入两个名字共用的内存；`y.view(3)` 产生新对象，用的仍是原来的内存。

# %% [markdown] lang="en"
# ## What saves memory
#
# Here are four ways to write the same sum. Which of them keep the address of `a`? (The original `a`
# stays alive while we compare. Otherwise its memory could be freed and given to the new tensor, and
# the comparison would mean nothing.)

# %% [markdown] lang="zh"
# ## 怎样写才节省内存
#
# 同一个加法有四种写法。哪几种保留 `a` 的地址？（比较时，原来的 `a` 一直存在；否则它的内存可能已经释放，又分给了新的张量，比较就没有意义了。）

# %% check="address_kept"
a = torch.ones(1024 * size, device=device)
b = torch.ones(1024 * size, device=device)
spellings = ["a += b", "a[:] = a + b", "torch.add(a, b, out=a)", "a = a + b"]
{code: run(code, a=a, b=b)["a"].data_ptr() == a.data_ptr() for code in spellings}

# %% [markdown] lang="en"
# Three of them keep the address. Do all three save memory? Look again at `a[:] = a + b`: Python
# computes the right side first, and `a + b` always creates a new tensor with memory of its own.
# Then the elements are copied into `a`. Therefore `a[:] = a + b` keeps the address, yet it
# allocates as much memory as `a = a + b`. Only `+=` (also written `a.add_(b)`) and `out=` allocate
# nothing. (The end of this lesson shows how to count the bytes.)
#
# > **If your notes say** that `a[:] = a + b` saves memory: it does not.

# %% [markdown] lang="zh"
# 三种写法保留了地址。那么这三种都节省内存吗？再看 `a[:] = a + b`：Python 先算右边，而 `a + b` 总是得到一个新张量，占用另一块内存；然后才把它的元素复制到 `a` 里。因此 `a[:] = a + b` 虽然保留地址，分配的内存却和 `a = a + b` 一样多。只有 `+=`（也可写作 `a.add_(b)`）和 `out=` 不分配内存。（本课末尾说明怎样统计字节数。）
#
# > **如果笔记上说** `a[:] = a + b` 节省内存：其实不省。

# %% [markdown] lang="en"
# ## Three traps of working in place
#
# An in-place operation keeps the memory, and therefore its size. A column cannot grow into a table:

# %% [markdown] lang="zh"
# ## 原地操作的三个陷阱
#
# 原地操作保留原有的内存，因此大小也不能变。一列数不能原地变成一张表：

# %% check="in_place_too_small" raises="RuntimeError"
column += row  # (rows, 1) and (1, cols)

# %% [markdown] lang="en"
# The dtype stays as well. For example, `k /= 2` raises an error if `k` holds integers, because a
# quotient is `float32`. The third trap raises no error: an assignment to the elements, `k[:] = …`,
# converts the number to the dtype of `k`. What does `k` hold after the next cell?

# %% [markdown] lang="zh"
# 数据类型也不能变。例如，`k` 里是整数时，`k /= 2` 会报错，因为商是 `float32`。第三个陷阱不会报错：给元素赋值（`k[:] = …`）时，所赋的数会转换成 `k` 的数据类型。运行下一格之后，`k` 里是什么？

# %% check="truncated"
k = torch.arange(size, device=device)
k[:] = 1.9
k

# %% [markdown] lang="en"
# The fraction is cut off, not rounded. If you want fractions, write `torch.arange(float(size))` or
# `k = k / 2`.

# %% [markdown] lang="zh"
# 小数部分是直接舍去的，没有四舍五入。需要小数时，可以写 `torch.arange(float(size))` 或 `k = k / 2`。

# %% [markdown] lang="en"
# ## To NumPy and back
#
# A tensor on the CPU and a NumPy array can use the same memory: `data.numpy()` and
# `torch.from_numpy(array)` **share memory**, but `torch.tensor(array)` makes a **copy**. We write
# one element through the array. Which of the four objects change?

# %% [markdown] lang="zh"
# ## 与 NumPy 互相转换
#
# CPU 上的张量可以与 NumPy 数组使用同一块内存：`data.numpy()` 和 `torch.from_numpy(array)` **共用底层存储**（共享内存），`torch.tensor(array)` 则创建**副本**。我们通过数组写入一个元素。下面四个对象中，哪些会变？

# %% check="shares"
data = torch.arange(float(size))  # on the CPU, because NumPy uses no other memory
array = data.numpy()
shared = torch.from_numpy(array)
copied = torch.tensor(array)
array[0] = -1
data, array, shared, copied

# %% [markdown] lang="en"
# Three of them show −1, and only the copy does not. (To copy a tensor, write `data.clone()`.) By
# default, floating-point numbers are `float64` in NumPy and `float32` in PyTorch, and `from_numpy`
# keeps the dtype. A network with `float32` weights then rejects the data.

# %% [markdown] lang="zh"
# 其中三个显示 −1，只有副本没有变。（要复制张量，用 `data.clone()`。）浮点数在 NumPy 中默认是 `float64`，在 PyTorch 中默认是 `float32`，而 `from_numpy` 保留原来的数据类型。如果网络的权重是 `float32`，就不能接受这样的数据。

# %% check="from_numpy_dtype"
torch.from_numpy(np.ones(2)).dtype, torch.ones(2).dtype

# %% [markdown] lang="en"
# Conversely, NumPy lacks some dtypes of PyTorch, for example `bfloat16`; convert such a tensor with
# `.float()` first. A tensor on a GPU has to be copied to the CPU. The following lines work for any
# device. (A tensor that requires a gradient also needs `.detach()`; see the next lesson.)

# %% [markdown] lang="zh"
# 反过来，NumPy 也没有 PyTorch 的全部数据类型，例如没有 `bfloat16`；这样的张量要先用 `.float()` 转换。GPU 上的张量要先复制到 CPU。下面的写法适用于任何设备。（需要求梯度的张量还要先 `.detach()`，见下一课。）

# %% check="round_trip"
there = x.cpu().numpy()
torch.from_numpy(there).to(device)

# %% [markdown] lang="en"
# ## What to remember
#
# | you want | you write |
# |---|---|
# | to inspect a tensor | `t.shape`, `t.dtype`, `t.device` |
# | one sum for each column | `t.sum(dim=0)`: the named axis disappears |
# | a longer axis, or a new axis | `torch.cat`, `torch.stack` |
# | to add one number to each row | `t + offset.reshape(-1, 1)` |
# | no new memory | `a += b`, `a.add_(b)`, `out=a` |
# | a copy of your own | `t.clone()`, `torch.tensor(array)` |

# %% [markdown] lang="zh"
# ## 要点
#
# | 想要 | 就写 |
# |---|---|
# | 了解一个张量 | `t.shape`、`t.dtype`、`t.device` |
# | 每一列求一个和 | `t.sum(dim=0)`：指定的轴消失 |
# | 加长一个轴，或增加一个轴 | `torch.cat`、`torch.stack` |
# | 每一行加一个数 | `t + offset.reshape(-1, 1)` |
# | 不分配新内存 | `a += b`、`a.add_(b)`、`out=a` |
# | 一份独立的副本 | `t.clone()`、`torch.tensor(array)` |

# %% [markdown] lang="en"
# ## Exercises
#
# Replace each `...` with your own code. You need no loop.

# %% [markdown] lang="zh"
# ## 练习
#
# 把每一处 `...` 换成你自己的代码，不需要写循环。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. Subtract the mean of each row
#
# From each element of `scores`, subtract the mean of its row. Which axis disappears in the mean, and
# which shape must the means have, so that each of them is matched with its row?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 每一行减去自己的均值
#
# 让 `scores` 的每个元素减去它所在行的均值。求均值时哪个轴消失？这些均值要变成什么形状，才能与各自的行对齐？

# %% tags=["exercise"]
scores = torch.arange(float(rows * cols), device=device).reshape(rows, cols)
means = ...
centred = ...
centred

# %% tags=["solution"] check="centred"
scores = torch.arange(float(rows * cols), device=device).reshape(rows, cols)
means = scores.mean(dim=1)  # (rows,)
centred = scores - means.reshape(rows, 1)  # (rows, cols)
centred

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. The same tensor, other elements
#
# Turn every element $t$ of `t` into $2t + 1$, but keep the object `t`. `t = 2 * t + 1` makes a new
# object, and `t[:] = 2 * t + 1` keeps the object but allocates memory. Two short lines can do it
# without allocating anything.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 对象不变，元素改变
#
# 把 `t` 的每个元素 $t$ 变成 $2t + 1$，而 `t` 仍是原来的对象。`t = 2 * t + 1` 会产生新对象；`t[:] = 2 * t + 1` 保留对象，但要分配内存。有一种写法只需短短两行，而且不分配内存。

# %% tags=["exercise"]
t = torch.arange(float(size), device=device)
before = t  # a second name for the same object
...
in_place = t, t is before
in_place

# %% tags=["solution"] check="in_place"
t = torch.arange(float(size), device=device)
before = t  # a second name for the same object
t *= 2
t += 1
in_place = t, t is before
in_place

# %% [markdown] lang="en"
# ## For the curious
#
# This section is optional. Here we count the bytes that each of the four ways to write a sum
# allocates. PyTorch calls a `TorchDispatchMode` for every operation. If the address of the result
# differs from the addresses of all inputs, its memory was newly allocated. (The underscore in the
# module's name warns that the module may change.) Predict the four counts. A `float32` takes 4
# bytes.

# %% [markdown] lang="zh"
# ## 选读
#
# 这一节可以略过。加法的四种写法各分配多少字节？每执行一个运算，`TorchDispatchMode` 都会被调用。如果结果的地址与所有输入的地址都不同，它的内存就是新分配的。（模块名里的下划线提醒我们，这个模块以后可能会变。）先预测四种写法各分配多少字节。一个 `float32` 占 4 个字节。

# %%
from torch.utils._python_dispatch import TorchDispatchMode


class CountBytes(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        inputs = [t for t in (*args, *(kwargs or {}).values()) if torch.is_tensor(t)]
        if result.data_ptr() not in {t.data_ptr() for t in inputs}:
            self.total += result.nbytes
        return result


# %% check="allocated"
allocated = {}
for code in spellings:
    with CountBytes() as counter:
        run(code, a=a, b=b)
    allocated[code] = counter.total
allocated

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - Make the sun set: `image.roll(t, dims=-2)`. How does `video[1, 3, 2, 3]`, a row of blue values,
#   change?
# - Set `rows = 4`, `cols = 7`, and write down every shape first.
# - Add `a *= b` and `a = a.add_(b)` to `spellings`, and predict their bytes.
# - Apply `exp` to `float64`. From which integer on is the result `inf`?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - 让太阳下落：`image.roll(t, dims=-2)`。最后一帧蓝色通道中索引为 3 的一行（`video[1, 3, 2, 3]`）有什么变化？
# - 设 `rows = 4`、`cols = 7`，先把每个形状写下来。
# - 在 `spellings` 里加上 `a *= b` 和 `a = a.add_(b)`，预测它们分配的字节数。
# - 让 `exp` 作用于 `float64`。从哪个整数起，结果是 `inf`？
