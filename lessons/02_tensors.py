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
# PyTorch keeps pictures, sentences, sounds, and everything that a network learns from them in one
# kind of object, the **tensor**.
#
# After this lesson you can read any shape aloud, predict the shape of a sum before you run it,
# and say which line of code allocates memory and which does not.

# %% [markdown] lang="zh"
# # 张量
#
# 图像、文字、声音，以及网络从中学到的一切，在 PyTorch 里都装在同一种对象中：**张量**（tensor）。
#
# 学完这一课，你能读懂任何一个形状，不用运行就说出两个张量之和的形状，还能判断哪一行代码要分配内存，哪一行不用。

# %% [markdown] lang="en"
# You can change these values and run the lesson again: everything below adapts, including the
# figures.

# %% [markdown] lang="zh"
# 可以改动下面的数值，再运行一遍：后面的内容都会随之变化，插图也不例外。

# %% tags=["parameters"]
rows: int = 3  # length of the first axis, in joining and broadcasting
cols: int = 2  # length of the second axis; take another value than rows
size: int = 5  # length of the vectors x and y
samples: int = 10000  # how many normal numbers are drawn
seed: int = 0  # seed of the random draws
device: str = "cpu"  # where the tensors live

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import torch

# %% [markdown] lang="en"
# ## From a scalar to a video
#
# A tensor is a grid of numbers of one kind. Each direction of the grid is an **axis**.
# The lengths of all axes form its **shape**, and the number of axes is its
# **number of dimensions**, `ndim`.
#
# A single temperature has no axis: it is a **scalar**. The temperatures of three days form a
# **vector**; two cities with three days each form a **matrix**.

# %% [markdown] lang="zh"
# ## 从标量到视频
#
# 张量是由同一种数排成的网格。网格的每个方向是一个**轴**（axis），各轴的长度合起来是**形状**（shape），轴的个数是**维数**（`ndim`）。
#
# 单独一个气温没有轴，是**标量**；连续三天的气温是**向量**；两座城市各三天的气温是**矩阵**。

# %% check="temperatures"
scalar = torch.tensor(21.5, device=device)  # ()
vector = torch.tensor([19.0, 21.5, 23.0], device=device)  # (day,)
days = [[19.0, 21.5, 23.0], [14.0, 18.5, 20.0]]
matrix = torch.tensor(days, device=device)  # (city, day)
scalar, vector, matrix

# %% [markdown] lang="en"
# To select one element, give an **index** for each axis, counted from 0. How many axes does
# `matrix` have, what is its shape, and which temperature is `matrix[1, 2]`?

# %% [markdown] lang="zh"
# 要取出一个元素，就为每个轴给出一个**索引**（index），从 0 数起。`matrix` 有几个轴？形状是什么？`matrix[1, 2]` 又是哪个气温？

# %% check="indexing"
matrix.ndim, matrix.shape, matrix[1, 2]

# %% [markdown] lang="en"
# A colour **image** has one more axis: one matrix each for red, green and blue.
# PyTorch puts this **channel** axis first: (C, H, W), that is channel, height, width.
#
# We paint 6 × 9 pixels: a blue sky and a golden sun, which is red with some green. Then we look at
# the red matrix. Where is it not zero?

# %% [markdown] lang="zh"
# 彩色**图像**再多一个轴：红、绿、蓝各一个矩阵。PyTorch 把这个**通道**（channel）轴放在最前面，形状是 (C, H, W)，即通道、高、宽。
#
# 我们来画一幅 6 × 9 像素的图：蓝天，加上一个金色的太阳，也就是红色里掺一些绿色。然后看看红色的那个矩阵：哪里不是零？

# %% check="red"
image = torch.zeros(3, 6, 9, device=device)  # (C, H, W)
image[2] = 0.8  # blue, everywhere
image[2, 1:4, 1:4] = 0.0  # but not in the sun,
image[0, 1:4, 1:4] = 1.0  # which is red
image[1, 1:4, 1:4] = 0.7  # and somewhat green
image[0]  # (H, W)

# %% [markdown] lang="en"
# A network reads many images at a time, a **batch**: (N, C, H, W).
# A **video** is a sequence of images, so that it has a time axis too; a batch of videos is
# (N, T, C, H, W). `torch.stack` puts tensors of equal shape one after the other along a new first
# axis.
#
# Predict: how many axes does `video` have, and how long is each?

# %% [markdown] lang="zh"
# 网络一次读入许多幅图像，称为一个**批量**（batch），形状是 (N, C, H, W)。**视频**是图像的序列，于是又多了时间轴；一批视频的形状是 (N, T, C, H, W)。`torch.stack` 把形状相同的张量沿一个新的、排在最前的轴叠起来。
#
# 猜一猜：`video` 有几个轴？每个轴有多长？

# %%
batch = torch.stack([image, image.flip(-1)])  # (N, C, H, W); flip mirrors
clip = torch.stack([image.roll(t, dims=-1) for t in range(4)])  # (T, C, H, W)
video = torch.stack([clip, clip.flip(-1)])  # (N, T, C, H, W)

# %% check="axes"
{
    "scalar": scalar.shape,
    "vector": vector.shape,
    "matrix": matrix.shape,
    "image": image.shape,
    "batch": batch.shape,
    "video": video.shape,
}

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
# **Figure.** From left to right: the three channels of `image`, each a matrix (H, W);
# the image that they make; the batch, two images along N; the video, two clips along N
# (downwards) with four frames along T (to the right).

# %% [markdown] lang="zh"
# **图**。从左到右：`image` 的三个通道，各是一个 (H, W) 矩阵；三者合成的图像；批量，沿 N 轴有两幅图像；视频，沿 N 轴（向下）有两段，每段沿 T 轴（向右）有四帧。

# %% [markdown] lang="en"
# An index fixes one axis and keeps the others. `batch[1, 1]` fixes two of four: the second image,
# which is mirrored, and its green channel. A matrix is left. Where is the sun?

# %% [markdown] lang="zh"
# 一个索引固定一个轴，其余的轴保留。`batch[1, 1]` 在四个轴里固定了两个：第二幅图（左右翻转过的那幅）、绿色通道，剩下一个矩阵。太阳在哪里？

# %% check="mirrored"
batch[1, 1]  # (H, W)

# %% [markdown] lang="en"
# `video[1, 3, 2]` fixes three of five: the mirrored clip, its fourth frame, the blue channel. In the
# first clip the sun starts in column 1 and moves one pixel to the right with each frame. In which
# columns is blue missing here?

# %% [markdown] lang="zh"
# `video[1, 3, 2]` 在五个轴里固定了三个：翻转过的那一段、第四帧、蓝色通道。在第一段里，太阳从第 1 列出发，每帧向右移动一个像素。那么这里哪几列缺少蓝色？

# %% check="last_frame"
video[1, 3, 2]  # (H, W)

# %% [markdown] lang="en"
# ## Creating tensors
#
# `arange` counts from 0 up to its argument, but does not include it.

# %% [markdown] lang="zh"
# ## 创建张量
#
# `arange` 从 0 数起，数到参数为止，但不含参数本身。

# %% check="arange"
torch.arange(size, device=device)

# %% [markdown] lang="en"
# All elements of a tensor have the same type, its **dtype**. An integer argument gives integers, and
# a decimal point gives floating-point numbers. This decides what the tensor can do later.

# %% [markdown] lang="zh"
# 张量的所有元素同属一种类型，称为**数据类型**（dtype）。参数是整数，得到整数；多写一个小数点，得到浮点数。这一点决定了张量以后能做什么。

# %% check="arange_dtypes"
torch.arange(12).dtype, torch.arange(12.0).dtype

# %% [markdown] lang="en"
# A nested list becomes a tensor with an axis for each level of brackets.
# Count the brackets at the left before you look: is the shape (3, 3)?

# %% [markdown] lang="zh"
# 嵌套列表也能变成张量：有几层方括号，就有几个轴。先数一数最左边的方括号：下面这个张量的形状是 (3, 3) 吗？

# %% check="nested_shape"
torch.tensor([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], device=device).shape

# %% [markdown] lang="en"
# There are three opening brackets, so there are three axes, and the first has length 1.
#
# If you know only the shape, start with zeros or ones.

# %% [markdown] lang="zh"
# 左边有三个方括号，所以有三个轴，其中第一个轴的长度是 1。
#
# 如果只知道形状，可以先建一个全零张量或全一张量。

# %% check="zeros"
torch.zeros(rows, cols, device=device)

# %% check="ones"
torch.ones(rows, cols, device=device)

# %% [markdown] lang="en"
# The weights of a network start as random numbers. `randn` draws them from the
# **standard normal distribution**, with mean 0 and standard deviation 1.
# `manual_seed` sets the start of the random numbers: the same seed gives the same numbers again, on
# the same kind of device and with the same release of PyTorch.

# %% [markdown] lang="zh"
# 网络的权重从随机数开始。`randn` 从均值为 0、标准差为 1 的**标准正态分布**中抽样。`manual_seed` 设定随机数的起点：在同一种设备、同一个 PyTorch 版本上，种子相同，抽到的数就相同。

# %% check="normal_shape"
torch.manual_seed(seed)
draws = torch.randn(samples, device=device)
draws.shape, draws.dtype

# %% [markdown] lang="en"
# We start again from the same seed and then draw once more. Which of `again` and `later` equals
# `draws`?

# %% [markdown] lang="zh"
# 从同一个种子重新开始，抽完再接着抽一次。`again` 和 `later`，哪一个与 `draws` 完全相同？

# %% check="same_seed"
torch.manual_seed(seed)
again = torch.randn(samples, device=device)
later = torch.randn(samples, device=device)
torch.equal(again, draws), torch.equal(later, draws)

# %% [markdown] lang="en"
# ## Arithmetic, element by element
#
# The arithmetic operators work **elementwise**: the first element with the first, the second with the
# second. We apply five operators to two vectors of integers. Which of the five results is not
# made of integers?

# %% [markdown] lang="zh"
# ## 逐元素运算
#
# 算术运算符都是**逐元素**的：第一个元素对第一个元素，第二个对第二个。对两个整数向量做五种运算，哪一个结果不是整数？

# %% check="arithmetic"
x = torch.arange(1, size + 1, device=device)  # 1, 2, ..., size
y = torch.full((size,), 2, device=device)  # 2, 2, ..., 2
x + y, x - y, x * y, x / y, x**y

# %% [markdown] lang="en"
# It is the division: for integers it always gives `float32`, even if every quotient is an integer.
# The other four keep `int64`.

# %% [markdown] lang="zh"
# 是除法：即使每个商都是整数，结果也是 `float32`。其余四种保持 `int64`。

# %% check="arithmetic_dtypes"
(x + y).dtype, (x - y).dtype, (x * y).dtype, (x / y).dtype, (x**y).dtype

# %% [markdown] lang="en"
# The exponential function $e^x$ is not the power operator `**` but a function of its own, `exp`.
# It turns integers into `float32`.
#
# > **If your notes say** "power" for `exp`: powers are $x^2$, written `x**2`.

# %% [markdown] lang="zh"
# 指数函数 $e^x$ 不是幂运算 `**`，而是单独的函数 `exp`。它把整数变成 `float32`。
#
# > **如果笔记上把 `exp` 写作“幂运算”**：幂运算是 $x^2$ 之类，写作 `x**2`。

# %% check="exponential"
torch.exp(x)

# %% [markdown] lang="en"
# It grows fast: $e^{88}$ still fits into `float32`, but $e^{89}$ becomes `inf` and raises no error.

# %% [markdown] lang="zh"
# 指数函数增长极快：$e^{88}$ 还在 `float32` 的范围之内，$e^{89}$ 就超出了，变成 `inf`，而且不报错。

# %% check="overflow"
torch.exp(torch.tensor([88, 89], device=device)).isinf()

# %% [markdown] lang="en"
# `sum` reduces a tensor to a scalar: $1 + 2 + \dots + n = n(n+1)/2$.
# The result is still a tensor, with shape `()`; `.item()` gives the Python number.

# %% [markdown] lang="zh"
# `sum` 把张量归约为一个标量：$1 + 2 + \dots + n = n(n+1)/2$。结果仍是张量，形状是 `()`；用 `.item()` 取出 Python 的数。

# %% check="total"
x.sum()

# %% [markdown] lang="en"
# With `dim=` you name the axis that is summed over. **The axis you name is the one that
# disappears**: from (rows, cols), `dim=0` leaves one sum for each column.

# %% [markdown] lang="zh"
# 用 `dim=` 指定沿哪个轴求和。**对哪个轴求和，哪个轴就消失**：形状是 (rows, cols) 时，`dim=0` 为每一列留下一个和。

# %% check="column_sums"
grid = torch.arange(rows * cols, device=device).reshape(rows, cols)
grid.sum(dim=0)  # (cols,)

# %% [markdown] lang="en"
# The mean raises an error. Read its last line: what does PyTorch object to?

# %% [markdown] lang="zh"
# 再求均值，这次会报错。读一读最后一行：PyTorch 不接受的是什么？

# %% check="integer_mean_fails" raises="RuntimeError"
x.mean()

# %% [markdown] lang="en"
# A mean of integers need not be an integer. Division and `exp` turn integers into `float32` by
# themselves, but `mean` does not: choose a dtype yourself. (Negative powers of integers, `x**-1`,
# raise an error, too.)

# %% [markdown] lang="zh"
# 整数的均值不一定是整数。除法和 `exp` 会自动把整数变成 `float32`，`mean` 却不会，数据类型要自己选。（整数的负次幂 `x**-1` 也会报错。）

# %% check="mean"
x.float().mean()

# %% [markdown] lang="en"
# ## Joining tensors
#
# `cat`, to **concatenate**, joins tensors end to end along an axis that they already have.
# Along axis 0 the rows follow one another.

# %% [markdown] lang="zh"
# ## 拼接与堆叠
#
# `cat` 做**拼接**：沿一个已有的轴，把张量一个接一个地连起来。沿轴 0 拼接，是行接着行。

# %% check="cat_rows"
upper = grid  # (rows, cols)
lower = grid + 100  # (rows, cols)
torch.cat((upper, lower), dim=0)  # (2 rows, cols)

# %% [markdown] lang="en"
# Along axis 1 the matrices are placed side by side. Which numbers form the first row?

# %% [markdown] lang="zh"
# 沿轴 1 拼接，则左右并排。第一行由哪些数组成？

# %% check="cat_columns"
torch.cat((upper, lower), dim=1)  # (rows, 2 cols)

# %% [markdown] lang="en"
# `cat` keeps the number of axes. `stack` adds one: two matrices become the two pages of a book.

# %% [markdown] lang="zh"
# `cat` 不改变轴的个数，`stack`（**堆叠**）则多出一个轴：两个矩阵成了一本书的两页。

# %% check="stacked"
torch.stack((upper, lower)).shape  # (2, rows, cols)

# %% [markdown] lang="en"
# A vector has only axis 0, so that there is no axis 1 to concatenate along. (Some notes concatenate
# two vectors with `dim=1`; this is what happens.)

# %% [markdown] lang="zh"
# 向量只有轴 0，不能沿轴 1 拼接。（有的笔记对两个向量用 `dim=1`，结果如下。）

# %% check="cat_missing_axis" raises="IndexError"
torch.cat((x, y), dim=1)

# %% [markdown] lang="en"
# ## Broadcasting
#
# We want an addition table: a column of numbers $i$, a row of numbers $j$, and $i + j$ where they
# cross. First by hand, with two loops.

# %% [markdown] lang="zh"
# ## 广播机制
#
# 做一张加法表：一列数 $i$，一行数 $j$，交叉处写 $i + j$。先用两层循环，亲手来做。

# %% check="by_hand"
torch.tensor([[i + j for j in range(cols)] for i in range(rows)], device=device)

# %% [markdown] lang="en"
# PyTorch does it with one `+`, although the shapes differ: the column is stretched to the right, and
# the row is stretched downwards. This is called **broadcasting**.

# %% [markdown] lang="zh"
# PyTorch 用一个 `+` 就能做到，尽管两者形状不同：列向右扩展，行向下扩展。这就是**广播机制**。

# %% check="broadcast"
column = torch.arange(rows, device=device).reshape(rows, 1)
row = torch.arange(cols, device=device).reshape(1, cols)
column + row  # (rows, cols)

# %% [markdown] lang="en"
# The rule, in three steps:
#
# 1. Write the shapes one below the other, **aligned at the right**.
# 2. Where an axis is missing at the left, put a 1.
# 3. Compare each pair of lengths: equal ones stay, a 1 is stretched to the other length,
#    anything else is an error.

# %% [markdown] lang="zh"
# 规则分三步：
#
# 1. 把两个形状上下写成两行，**右端对齐**。
# 2. 左边缺少的轴补 1。
# 3. 逐轴比较长度：相等则保留，一个是 1 则扩展到另一个的长度，否则报错。

# %% [markdown] lang="en"
# Predict the shape of (rows, 1) + (cols,), then look. The second has only one axis, which is below the 1
# when the shapes are aligned at the right.

# %% [markdown] lang="zh"
# 先预测 (rows, 1) + (cols,) 的形状，再看结果。后一个形状只有一个轴，右端对齐后，它与前一个形状中的 1 对应。

# %% check="broadcast_shape"
(column + torch.arange(cols, device=device)).shape

# %% [markdown] lang="en"
# There are no exceptions. An empty tensor, with an axis of length 0, broadcasts too: the 1 of the
# other tensor becomes 0. So does a scalar, whose axes are all missing.
#
# > **If your notes say** that both tensors must have at least one axis, or that axes are compared
# > from the left: neither is true.

# %% [markdown] lang="zh"
# 规则没有例外。空张量（有一个轴长度为 0）也能广播，对应的 1 变成 0；标量的轴全都缺少，同样可以广播。
#
# > **如果笔记上说**两个张量都至少要有一个轴，或者从左边开始比较：两种说法都不对。

# %% check="empty_and_scalar"
empty = torch.ones(0, cols, device=device)
(empty + row).shape, (column + scalar).shape

# %% [markdown] lang="en"
# Here is a mistake that everybody makes once. `table` has `rows` rows, and `offset` holds one number
# for each row, which we want to add to the whole row. Align the shapes at the right before you run
# the cell.

# %% [markdown] lang="zh"
# 下面是人人都会犯一次的错误。`table` 有 `rows` 行；`offset` 为每一行准备了一个数，要加到整行上。运行之前，先右端对齐看一看。

# %% check="broadcast_fails" raises="RuntimeError"
table = torch.zeros(rows, rows + cols, device=device)
offset = torch.arange(rows, device=device)  # one number for each row
table + offset

# %% [markdown] lang="en"
# Aligned at the right, `offset` meets the columns. Make it a column, (rows, 1), so that it meets the
# rows.

# %% [markdown] lang="zh"
# 右端对齐后，`offset` 遇到的是列。把它变成一列，形状为 (rows, 1)，位置就对了。

# %% check="per_row"
table + offset.reshape(rows, 1)

# %% [markdown] lang="en"
# The error was good luck. In a square table the lengths agree, and the numbers are added to the
# columns without any error. Compare with the result above: here each *column* has its number.

# %% [markdown] lang="zh"
# 这次报错是运气好。如果表格是方的，长度恰好相等，这些数就会悄悄加到各列上。与上面的结果比较：这里是每一**列**得到一个数。

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
# **Figure.** Three sums, their shapes aligned at the right and the result's shape below in blue.
# Dashed boxes are missing axes, taken as 1. In the red column two lengths other than 1 meet and
# differ: an error.

# %% [markdown] lang="zh"
# **图**。三个加法，形状右端对齐，下方蓝色的是结果的形状。虚线框是缺少的轴，当作 1。红色一列里，两个都不是 1 的长度互不相等，于是报错。

# %% [markdown] lang="en"
# Stretching copies nothing. `stride` tells how many elements to skip in memory to move one step along
# each axis. Along the stretched axis it is 0, because the same element is read again and again.

# %% [markdown] lang="zh"
# 扩展并不复制数据。`stride`（步幅）说明沿每个轴走一步，在内存里要跨过几个元素。扩展出来的轴上步幅是 0：反复读取同一个元素。

# %% check="stretched"
column.expand(rows, cols).stride()

# %% [markdown] lang="en"
# ## Where the elements are stored
#
# Models fill a GPU to its last gigabyte, and then every copy counts. Three things are easy to
# confuse: the **name** `y`, the tensor **object** that it stands for, and the **memory** with
# the elements. `a is b` compares objects, that is their `id()`. `data_ptr()` is the address of the
# memory: two objects can have one memory.

# %% [markdown] lang="zh"
# ## 元素存放在哪里
#
# 模型常把 GPU 的显存占满，这时每一份副本都不能忽视。有三样东西容易混淆：**名字** `y`，它所指的张量**对象**，以及存放元素的**内存**。`a is b` 比较的是对象，也就是它们的 `id()`；`data_ptr()` 是内存的地址。两个对象可以共用一块内存。

# %% [markdown] lang="en"
# An **in-place operation** writes into existing memory. `z[:] = …` keeps the object `z` and its
# memory, and replaces the elements.
#
# > **If your notes** print `id(z)` before and after `z[:] = …` to show that memory is reused: `id`
# > names the object, so it says nothing about the memory. Compare `data_ptr()`.

# %% [markdown] lang="zh"
# **原地操作**写入已有的内存。`z[:] = …` 保留对象 `z` 和它的内存，只换掉里面的元素。
#
# > **如果笔记上**在 `z[:] = …` 前后打印 `id(z)`，用来说明内存没有变：`id` 是对象的标识，与内存无关。应当比较 `data_ptr()`。

# %% check="in_place_value"
z = torch.zeros_like(y)
z[:] = x + y
z

# %% [markdown] lang="en"
# A **view** is another object with the same memory. We write through `flat` and look at `m`. Is it
# the same object? Is it the same memory?

# %% [markdown] lang="zh"
# **视图**（view）是另一个对象，但用的是同一块内存。通过 `flat` 写入，再看 `m`：是同一个对象吗？是同一块内存吗？

# %% check="view_writes"
m = torch.zeros(rows, cols, device=device)
flat = m.view(-1)  # (rows * cols,)
flat[-1] = 7
m, flat is m, flat.data_ptr() == m.data_ptr()

# %% [markdown] lang="en"
# With `=` a name moves to another object. With `+=` the object stays, and every name for it sees
# the change. The function `run` executes one line. We use it to do both, and draw the names, the
# objects and their memory.

# %% [markdown] lang="zh"
# 用 `=`，名字改指另一个对象；用 `+=`，对象不变，指向它的每个名字都看到变化。函数 `run` 执行一行代码。我们用它把两种都做一遍，并画出名字、对象与内存的关系。


# %%
def run(statement, **names):
    """Execute one line of Python; return what each name stands for afterwards."""
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
# **Figure.** Names, objects (circles) and memory (boxes). After `old = y` both names stand for one
# object. From there, `y = y + 10` makes a new object with new memory; `y += 10` writes into the
# memory that both names see; a view is a new object on the old memory.

# %% [markdown] lang="zh"
# **图**。名字、对象（圆）与内存（方格）。执行 `old = y` 之后，两个名字指同一个对象。由此出发：`y = y + 10` 产生新对象和新内存；`y += 10` 写入两个名字共用的内存；视图是旧内存上的新对象。

# %% [markdown] lang="en"
# ## What saves memory
#
# There are four ways to write the same sum. Which of them keep the address of `a`?

# %% [markdown] lang="zh"
# ## 怎样才节省内存
#
# 同一个加法有四种写法。哪几种保留 `a` 的地址？

# %%
spellings = ["a += b", "a[:] = a + b", "torch.add(a, b, out=a)", "a = a + b"]
a = torch.ones(1024 * size, device=device)
b = torch.ones(1024 * size, device=device)

# %% [markdown] lang="en"
# `run` returns the tensor that `a` stands for afterwards. Our own `a` stays alive while we compare;
# otherwise the new tensor could get its address, and the comparison would mean nothing.

# %% [markdown] lang="zh"
# `run` 返回执行之后 `a` 所指的张量。比较时，我们自己的 `a` 一直还在；否则它的地址可能分给新的张量，比较就没有意义了。

# %% check="address_kept"
{code: run(code, a=a, b=b)["a"].data_ptr() == a.data_ptr() for code in spellings}

# %% [markdown] lang="en"
# Three keep the address. Do all three save memory? Look again at `a[:] = a + b`: Python computes the
# right side first. Its result needs memory of its own, because `a` is still needed.

# %% [markdown] lang="zh"
# 三种保留了地址。那么三种都节省内存吗？再看 `a[:] = a + b`：Python 先算右边，而这时 `a` 还要用，所以结果需要另一块内存。

# %% check="temporary_moved"
temporary = a + b
temporary.data_ptr() != a.data_ptr(), temporary.nbytes

# %% [markdown] lang="en"
# The right side is a temporary tensor of full size. Therefore `a[:] = a + b` keeps the address, yet it
# allocates as much memory as `a = a + b`. Only `+=` (also written `a.add_(b)`) and `out=` allocate
# nothing. (How to count the bytes: see the end of this lesson.)
#
# > **If your notes say** that `a[:] = a + b` saves memory: it does not.

# %% [markdown] lang="zh"
# 右边是一个同样大小的临时张量。因此 `a[:] = a + b` 虽然保留地址，分配的内存却和 `a = a + b` 一样多。只有 `+=`（也可写作 `a.add_(b)`）和 `out=` 完全不分配内存。（怎样数出字节数，见本课最后。）
#
# > **如果笔记上说** `a[:] = a + b` 节省内存：其实不省。

# %% [markdown] lang="en"
# ## Three traps of working in place
#
# An in-place operation keeps the memory, and therefore its size. A column cannot grow into a table:

# %% [markdown] lang="zh"
# ## 原地操作的三个陷阱
#
# 原地操作保留内存，也就保留了它的大小。一列不能原地变成一张表：

# %% check="in_place_too_small" raises="RuntimeError"
column += row  # (rows, 1) and (1, cols)

# %% [markdown] lang="en"
# The dtype stays as well. A quotient is `float32`, and the memory of `k` holds `int64`:

# %% [markdown] lang="zh"
# 数据类型也保持不变。商是 `float32`，而 `k` 的内存里存的是 `int64`：

# %% check="integer_division_fails" raises="RuntimeError"
k = torch.arange(size, device=device)
k /= 2

# %% [markdown] lang="en"
# The third trap raises no error. Assignment converts to the dtype of `k`: what is in `k` now?

# %% [markdown] lang="zh"
# 第三个陷阱没有任何提示。赋值会转换成 `k` 的数据类型：现在 `k` 里是什么？

# %% check="truncated"
k[:] = 1.9
k

# %% [markdown] lang="en"
# The fraction is cut off, not rounded. If you want fractions, write `torch.arange(float(size))` or
# `k = k / 2`.

# %% [markdown] lang="zh"
# 小数部分被截去，而不是四舍五入。需要小数时，写 `torch.arange(float(size))` 或 `k = k / 2`。

# %% [markdown] lang="en"
# ## To NumPy and back
#
# A tensor on the CPU and a NumPy array can use the same memory: `data.numpy()` and
# `torch.from_numpy(array)` **share memory**, but `torch.tensor(array)` makes a **copy**.
# We write one element through the array. Which of the four change?

# %% [markdown] lang="zh"
# ## 与 NumPy 互相转换
#
# CPU 上的张量可以与 NumPy 数组用同一块内存：`data.numpy()` 和 `torch.from_numpy(array)` **共用底层存储**（共享内存），`torch.tensor(array)` 则建立**副本**。通过数组写入一个元素，下面四个当中哪些会变？

# %% check="shares"
data = torch.arange(float(size))  # on the CPU, as NumPy knows no other memory
array = data.numpy()
shared = torch.from_numpy(array)
copied = torch.tensor(array)
array[0] = -1
data, array, shared, copied

# %% [markdown] lang="en"
# Three of them show the −1, and the copy does not. The types do not tell which is which:

# %% [markdown] lang="zh"
# 三个都变成了 −1，副本没有变。从类型上却看不出这一点：

# %% check="types"
type(data), type(data.numpy()), type(torch.tensor(data.numpy()))

# %% [markdown] lang="en"
# Floating-point numbers are `float64` by default in NumPy and `float32` in PyTorch, and `from_numpy`
# keeps the dtype. A network with `float32` weights then refuses the data.

# %% [markdown] lang="zh"
# NumPy 的浮点数默认是 `float64`，PyTorch 默认是 `float32`，而 `from_numpy` 原样保留。权重是 `float32` 的网络就会拒绝这样的数据。

# %% check="from_numpy_dtype"
torch.from_numpy(np.ones(2)).dtype, torch.ones(2).dtype

# %% [markdown] lang="en"
# In the other direction, not every dtype of PyTorch exists in NumPy: there is no `bfloat16`.

# %% [markdown] lang="zh"
# 反过来，PyTorch 的数据类型在 NumPy 中并非都有：NumPy 没有 `bfloat16`。

# %% check="bfloat16_fails" raises="TypeError"
torch.ones(2, dtype=torch.bfloat16).numpy()

# %% [markdown] lang="en"
# Therefore the way to NumPy and back, from any device, is: to the CPU, to NumPy, and back to the
# device. (A tensor that requires a gradient needs `.detach()` first; see the next lesson.)

# %% [markdown] lang="zh"
# 因此，不论张量在哪个设备上，往返的步骤都是：先到 CPU，再到 NumPy，最后回到原来的设备。（需要求梯度的张量要先 `.detach()`，见下一课。）

# %% check="round_trip"
there = x.cpu().numpy()
torch.from_numpy(there).to(device)

# %% [markdown] lang="en"
# ## What to remember
#
# | you want | you write |
# |---|---|
# | to know what a tensor is | `t.shape`, `t.dtype`, `t.device` |
# | one sum for each column | `t.sum(dim=0)`: the named axis disappears |
# | a longer axis, or a new axis | `torch.cat`, `torch.stack` |
# | one number for each row | `t + offset.reshape(-1, 1)` |
# | no new memory | `a += b`, `a.add_(b)`, `out=a` |
# | a copy of your own | `t.clone()`, `torch.tensor(array)` |

# %% [markdown] lang="zh"
# ## 要点
#
# | 想要 | 就写 |
# |---|---|
# | 看清手里的张量 | `t.shape`、`t.dtype`、`t.device` |
# | 每一列求一个和 | `t.sum(dim=0)`：指定的轴消失 |
# | 沿某个轴加长，或多出一个轴 | `torch.cat`、`torch.stack` |
# | 每一行加一个数 | `t + offset.reshape(-1, 1)` |
# | 不占新内存 | `a += b`、`a.add_(b)`、`out=a` |
# | 一份自己的副本 | `t.clone()`、`torch.tensor(array)` |

# %% [markdown] lang="en"
# ## Exercises
#
# Replace each `...` with your own code. You need no loop.

# %% [markdown] lang="zh"
# ## 练习
#
# 把每一处 `...` 换成你自己的代码，不需要写循环。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. A multiplication table
#
# Make the table of $i \cdot j$ for $i = 1, \dots,$ `rows` downwards and $j = 1, \dots,$ `cols` to
# the right. Write down the two shapes that meet, then one `*`.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 乘法表
#
# 制作 $i \cdot j$ 的表：$i = 1, \dots,$ `rows` 向下，$j = 1, \dots,$ `cols` 向右。先写下相遇的两个形状，再写一个 `*`。

# %% tags=["exercise"]
i = ...
j = ...
products = ...
products

# %% tags=["solution"] check="products"
i = torch.arange(1, rows + 1, device=device).reshape(rows, 1)
j = torch.arange(1, cols + 1, device=device)
products = i * j
products

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. Subtract the mean of each row
#
# From each element of `scores`, subtract the mean of its row. Which axis disappears in the mean, and
# which shape must the means have, so that each of them meets its row?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 每一行减去自己的均值
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
# ### 3. The same tensor, other elements
#
# Turn every element $t$ of `t` into $2t + 1$, but keep the object `t`. `t = 2 * t + 1` makes a new
# object, and `t[:] = 2 * t + 1` keeps the object but allocates memory. Two short lines can do it
# without allocating anything.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 张量不变，元素改变
#
# 把 `t` 的每个元素 $t$ 变成 $2t + 1$，而 `t` 仍是原来的对象。`t = 2 * t + 1` 会产生新对象；`t[:] = 2 * t + 1` 保留对象，但要分配内存。用短短两行，就能完全不分配内存。

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

# %% [markdown] lang="en" tags=["exercise"]
# ### 4. One more page
#
# `book` has two pages, and `page` is to become the third. Do you need `cat` or `stack`, and what is
# missing in the shape of `page`?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 4. 再加一页
#
# `book` 有两页，要把 `page` 加在最后，作为第三页。该用 `cat` 还是 `stack`？`page` 的形状里缺了什么？

# %% tags=["exercise"]
book = torch.zeros(2, rows, cols, device=device)
page = torch.ones(rows, cols, device=device)
longer = ...
longer

# %% tags=["solution"] check="longer"
book = torch.zeros(2, rows, cols, device=device)
page = torch.ones(rows, cols, device=device)
longer = torch.cat((book, page.reshape(1, rows, cols)))
longer

# %% [markdown] lang="en"
# ## For the curious
#
# The rest of this lesson is optional.
#
# **How far may the draws be off?** The mean 0 is a property of the distribution, not of our draws.
# The mean $\bar z$ of $n$ draws has the standard deviation $1/\sqrt{n}$, and a deviation of more
# than five times that is very rare. The variance $s^2$ of the draws has the standard deviation
# $\sqrt{2/(n-1)}$, but large values are more common than small ones, so its bound has a second
# term:
#
# $$|\bar z| \le \frac{5}{\sqrt{n}}, \qquad
# |s^2 - 1| \le 5\sqrt{\frac{2}{n-1}} + \frac{25}{n-1}$$

# %% [markdown] lang="zh"
# ## 选读
#
# 本课余下的内容可以略过。
#
# **样本会偏离多少**？均值 0 说的是分布，不是抽到的这些数。$n$ 个样本的均值 $\bar z$ 的标准差是 $1/\sqrt{n}$，偏离极少超过它的五倍。样本方差 $s^2$ 的标准差是 $\sqrt{2/(n-1)}$，但大幅偏大比大幅偏小更常见，所以它的界限多一项：
#
# $$|\bar z| \le \frac{5}{\sqrt{n}}, \qquad
# |s^2 - 1| \le 5\sqrt{\frac{2}{n-1}} + \frac{25}{n-1}$$

# %% check="bounds"
mean_bound = 5 / samples**0.5
variance_bound = 5 * (2 / (samples - 1)) ** 0.5 + 25 / (samples - 1)
mean_bound, variance_bound

# %% [markdown] lang="en"
# The more draws, the narrower the bounds. Are ours within them?

# %% [markdown] lang="zh"
# 抽得越多，界限越窄。我们抽到的数在界限之内吗？

# %% check="normal_moments"
mean, variance = draws.mean().item(), draws.var().item()
abs(mean) <= mean_bound, abs(variance - 1) <= variance_bound

# %% [markdown] lang="en"
# **How many bytes does each spelling allocate?** We count. A `TorchDispatchMode` is called for every
# operation: if the memory of the result belongs to none of the inputs, it was newly allocated.
# (The underscore in the module's name warns that it may change.)

# %% [markdown] lang="zh"
# **每种写法各分配多少字节**？我们来数一数。每执行一个运算，`TorchDispatchMode` 都会被调用：如果结果的内存不属于任何一个输入，就是新分配的。（模块名里的下划线提醒我们，它以后可能会变。）

# %%
from torch.utils._python_dispatch import TorchDispatchMode


def block(t):  # the address at which the memory of t begins; None if t is no tensor
    return t.untyped_storage().data_ptr() if isinstance(t, torch.Tensor) else None


# %%
class CountBytes(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        inputs = [*args, *(kwargs or {}).values()]
        if block(result) not in {None, *map(block, inputs)}:
            self.total += result.nbytes
        return result


# %% [markdown] lang="en"
# Predict how many bytes each of the four allocates. A `float32` takes 4 bytes.

# %% [markdown] lang="zh"
# 先预测四种写法各分配多少字节。一个 `float32` 占 4 个字节。

# %% check="allocated"
allocated = {}
for code in spellings:
    with CountBytes() as counter:
        run(code, a=a, b=b)
    allocated[code] = counter.total
allocated

# %% [markdown] lang="en"
# At its peak, `a[:] = a + b` needs memory for `a`, `b` and the temporary tensor.

# %% [markdown] lang="zh"
# `a[:] = a + b` 在峰值时要同时容纳 `a`、`b` 和临时张量。

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - Let the sun sink: `image.roll(t, dims=-2)`. Which elements of `last_frame` are zero now?
# - Set `rows = 4`, `cols = 7`, and write down every shape first.
# - Add `a *= b` and `a = a.add_(b)` to `spellings`, and predict their bytes.
# - Apply `exp` to `float64`. From which integer on is the result `inf`?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - 让太阳下落：`image.roll(t, dims=-2)`。`last_frame` 中哪些元素是零？
# - 设 `rows = 4`、`cols = 7`，先把每个形状写下来。
# - 在 `spellings` 里加上 `a *= b` 和 `a = a.add_(b)`，预测它们分配的字节数。
# - 让 `exp` 作用于 `float64`。从哪个整数起，结果是 `inf`？
