# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 8}
#     parameters:
#       world_size: {min: 1, max: 8}
#       batch: {min: 1, max: 512}
#       features: {min: 1, max: 64}
#       microbatches: {min: 1, max: 8}
#       steps: {min: 1, max: 20}
#       lr: {min: 0.0001, max: 1}
#       seed: {min: 0, max: 4294967295}
#       dtype: {choices: [float32, float64]}
# ---

# %% [markdown] lang="en"
# # Parallel pitfalls
#
# In this lesson no program fails. There is no error and no warning, and all GPUs are busy. Nine
# times, the result is wrong.
#
# After this lesson you know each of the nine mistakes by the numbers that it leaves behind, and
# you have the one habit that finds them all: compare with one device.

# %% [markdown] lang="zh"
# # 并行训练的陷阱
#
# 这一课里的程序个个都能跑完：没有报错，没有警告，所有 GPU 都在忙。
# 但有九次，结果是错的。
#
# 学完这一课，你能从数值上认出这九种错误，并养成一个能把它们全部查出来的习惯：
# 与一台设备的结果作比较。

# %% [markdown] lang="en"
# Each mistake comes twice: first wrong, then right. Before you run the wrong cell, say what it
# will show. `world_size` is again the number of processes.

# %% [markdown] lang="zh"
# 每种错误都写两遍：先错，后对。运行错的那一格之前，先说说它会显示什么。
# `world_size` 仍是进程数。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # rows in one batch, over all processes
features: int = 4  # numbers in a row
microbatches: int = 4  # pieces of a batch in a pipeline
steps: int = 5  # training steps, and epochs
lr: float = 0.1  # learning rate
seed: int = 0  # where the random draws begin
dtype: str = "float64"  # dtype of data and weights
device: str = "cpu"  # what the processes compute on: cpu or cuda

# %% tags=["setup"]
import numpy as np

# %%
import inspect

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DistributedSampler

from parallel import launch, pitfalls
from parallel.microbatches import pipelined
from parallel.pitfalls import Regression

torch.set_printoptions(threshold=40, edgeitems=2)  # a long tensor shall not fill a page

# %% [markdown] lang="en"
# ## The right answer first
#
# Even the smallest of networks shows these mistakes. So take a linear regression: the mean squared
# error of $\mathbf{X}\mathbf{w}$ over $n$ rows, with the gradient
#
# $$\nabla L = \frac{2}{n} \mathbf{X}^\top (\mathbf{X}\mathbf{w} - \mathbf{y})$$
#
# The rows stand in the order in which they were collected, and in that time the targets have grown
# by one. So the first rows are not like the last: that is common, and it brings mistakes to light.

# %% [markdown] lang="zh"
# ## 先求正确答案
#
# 再小的网络也逃不过这些错误。所以我们取线性回归：$\mathbf{X}\mathbf{w}$ 在 $n$ 行上的均方误差，
# 梯度是
#
# $$\nabla L = \frac{2}{n} \mathbf{X}^\top (\mathbf{X}\mathbf{w} - \mathbf{y})$$
#
# 各行按采集的先后排列，其间目标值渐渐增大了 1。
# 所以前面的行与后面的行并不相似：这很常见，也正好让错误暴露出来。


# %%
def tensor(numbers):
    return torch.tensor(numbers, dtype=getattr(torch, dtype), device=device)


rng = np.random.default_rng(seed)
w = tensor(rng.uniform(0.5, 1, features))
rows = rng.uniform(0.5, 1, (batch, features)) / features**0.5
x = tensor(rows)  # (batch, features)
y = tensor(2 * rows.sum(axis=1) + np.linspace(0, 1, batch))  # (batch,)

# %% [markdown] lang="en"
# One device finds this gradient. It is what the ranks should find together.

# %% [markdown] lang="zh"
# 一台设备求得的梯度如下。各进程合起来，就应当得到它。

# %% check="gradient"
network = Regression(w)
((network(x) - y) ** 2).mean().backward()
network.w.grad

# %% [markdown] lang="en"
# And these are the gradients of the shards alone, each on the device of its rank. They differ.
# (A shard without rows, as with 3 rows for 4 ranks, counts as zero.)

# %% [markdown] lang="zh"
# 各个分片单独的梯度如下，分别在各进程的设备上计算。它们并不相同。
# （没有行的分片按零计，例如 3 行分给 4 个进程时。）

# %% check="shard_gradients"
shards = list(zip(x.tensor_split(world_size), y.tensor_split(world_size)))
on_gpus = torch.device(device).type == "cuda"
devices = [f"cuda:{r}" if on_gpus else "cpu" for r in range(world_size)]
networks = [Regression(w).to(d) for d in devices]
for net, d, (part, target) in zip(networks, devices, shards):
    pitfalls.local_loss(net, part.to(d), target.to(d)).backward()
[net.w.grad for net in networks]

# %% [markdown] lang="en"
# What the rank programs of this lesson have in common:

# %% [markdown] lang="zh"
# 这一课的各个程序共用下面这几段：

# %%
print(inspect.getsource(Regression))
print(inspect.getsource(pitfalls.my_shard))
print(inspect.getsource(pitfalls.my_share))
print(inspect.getsource(pitfalls.local_loss))

# %%
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# ## 1. The ranks never meet
#
# **Symptom.** On every rank the loss goes down. Yet the saved model is only as good as if it had
# seen a part of the data.
#
# `no_sync()` is meant for gradients that accumulate over several backward passes: no message until
# the last one. Here the last one has slipped in as well.

# %% [markdown] lang="zh"
# ## 1. 各练各的
#
# **症状**：每个进程上的损失都在下降，保存下来的模型却好像只见过一部分数据。
#
# `no_sync()` 是为梯度累积准备的：前几次反向传播不通信，到最后一次才通信。
# 这里连最后一次也写进去了。

# %%
print(inspect.getsource(pitfalls.train_apart))

# %% [markdown] lang="en"
# The loss of each rank (a row) at the first step and at the last. Nothing to worry about?

# %% [markdown] lang="zh"
# 每个进程（一行）在第一步和最后一步的损失。看上去一切正常？

# %% check="own_losses"
task = (w, shards, steps, lr)
apart = launch(pitfalls.train_apart, world_size, *task, device=device)
torch.stack([losses[[0, -1]] for losses, path in apart])  # (world_size, 2)

# %% [markdown] lang="en"
# Now look at the weights, a row for each rank. They began equal.

# %% [markdown] lang="zh"
# 再看权重，每个进程一行。它们开始时是相同的。

# %% check="drifted"
torch.stack([path[-1] for losses, path in apart])  # (world_size, features)

# %% [markdown] lang="en"
# Every rank has trained a model of its own, and rank 0 saves one of $W$. (The same comes of calling
# `replica.module(x)` for `replica(x)`: DDP does not learn of that pass.) **Remedy**: the last
# forward and backward pass stand outside `no_sync()`, and go through DDP.

# %% [markdown] lang="zh"
# 每个进程各自训练了一个模型，进程 0 保存的只是 $W$ 个中的一个。
# （把 `replica(x)` 写成 `replica.module(x)`，结果也是这样：DDP 不知道有过这次前向传播。）
# **办法**：最后一次前向传播和反向传播都要放在 `no_sync()` 之外，并且经过 DDP。

# %%
print(inspect.getsource(pitfalls.train_together))

# %% check="together"
together = launch(pitfalls.train_together, world_size, *task, device=device)
torch.stack([path[-1] for path in together])  # (world_size, features)

# %% [markdown] lang="en"
# One of the weights after each step: for each rank that trains alone, and for all ranks together.

# %% [markdown] lang="zh"
# 其中一个权重在每一步之后的值：先是各自训练的每个进程，再是所有进程一起训练。

# %% check="paths"
paths = torch.stack([path[:, 0] for losses, path in apart])  # (world_size, steps)
paths, together[0][:, 0]

# %% tags=["figure"]
BLUE, ORANGE, LINE, RED = "#a9c6de", "#f3c892", "#1d3557", "#c1121f"
figure, panel = plt.subplots(figsize=(4.5, 2.4), layout="constrained")
for r, path in enumerate(paths):
    values = [w[0].item(), *path.tolist()]  # at the beginning, after each step
    panel.plot(values, color=LINE, lw=0.8)
    panel.text(steps, values[-1], f" {r}", va="center")
panel.plot([w[0].item(), *together[0][:, 0].tolist()], color=RED, ls="--")
panel.set(xlabel="step", ylabel="$w_0$")
panel.xaxis.get_major_locator().set_params(integer=True)
panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** One weight, step by step. Each line is a rank that trains apart, with its number
# at the end; red dashes are the weight of all ranks together, which is that of one device.

# %% [markdown] lang="zh"
# **图**。一个权重逐步的变化。每条线是一个各练各的进程，末端是它的编号；
# 红色虚线是各进程合起来训练的权重，也就是一台设备上的权重。

# %% [markdown] lang="en"
# ## 2. Sum instead of mean
#
# **Symptom.** Training is fine on one GPU, shaky on two, and on eight the loss explodes, until
# somebody divides the learning rate by eight. (Adam divides by the size of the gradients, and hides
# the mistake.)
#
# All-reduce adds unless told otherwise. Predict: how large is this gradient, compared with the
# right one?

# %% [markdown] lang="zh"
# ## 2. 该取平均，却求了和
#
# **症状**：一块 GPU 上训练正常，两块有些不稳，八块时损失爆炸，
# 直到有人把学习率除以八。（Adam 会除以梯度的大小，把这个错误掩盖起来。）
#
# 没有另外说明时，全归约做的是求和。猜一猜：与正确的梯度相比，它有多大？

# %%
print(inspect.getsource(pitfalls.add_gradients))

# %% check="added"
added = launch(pitfalls.add_gradients, world_size, w, shards, device=device)
torch.stack(added)  # (world_size, features)

# %% [markdown] lang="en"
# About $W$ times as large, and equal on all ranks: comparing the ranks with each other finds
# nothing. **Remedy**: each rank weights its loss with its share $n_r / n$. The shares add up to 1,
# so their sum is a mean. (DDP divides by $W$ itself; there the weight is $n_r W / n$.)

# %% [markdown] lang="zh"
# 大约是 $W$ 倍，而且各进程都一样：只在进程之间互相比较，是查不出来的。
# **办法**：每个进程的损失乘以自己所占的份额 $n_r / n$。份额之和为 1，求和就成了平均。
# （DDP 自己会除以 $W$，所以那里的权重是 $n_r W / n$。）

# %%
print(inspect.getsource(pitfalls.average_gradients))

# %% check="averaged"
averaged = launch(pitfalls.average_gradients, world_size, w, shards, device=device)
torch.stack(averaged)  # (world_size, features)

# %% [markdown] lang="en"
# ## 3. The mean of means
#
# **Symptom.** The validation loss changes with the number of GPUs, though the model does not. And
# on some data sets it is NaN.
#
# Lesson 05 showed what a plain mean over uneven shards does to the gradient. The same mistake waits
# wherever ranks report a mean: of losses, or of right answers.

# %% [markdown] lang="zh"
# ## 3. 平均的平均
#
# **症状**：模型没变，验证集上的损失却随 GPU 的块数而变；在某些数据集上还会变成 NaN。
#
# 在第 05 课我们看到，分片大小不等时，普通平均会怎样影响梯度。
# 只要各进程汇报的是平均值，不论是平均损失还是准确率，都会遇到同样的错误。

# %%
print(inspect.getsource(pitfalls.evaluate_apart))

# %% [markdown] lang="en"
# Each rank's own loss, and the mean of these:

# %% [markdown] lang="zh"
# 每个进程自己的损失，以及它们的平均：

# %% check="evaluated_apart"
found = launch(pitfalls.evaluate_apart, world_size, w, shards, device=device)
torch.stack([loss for loss, mean in found]), torch.stack([mean for loss, mean in found])

# %% [markdown] lang="en"
# A rank with one row less has as much say as the others, and a rank without rows has 0/0 to report.
# **Remedy**: never send a mean. Send the sum and the count, and divide at the end.

# %% [markdown] lang="zh"
# 少一行的进程与其他进程有同样的发言权；一行也没有的进程，只能报 0/0。
# **办法**：不要传平均值，要传总和与个数，最后再相除。

# %%
print(inspect.getsource(pitfalls.evaluate_together))

# %% check="evaluated"
torch.stack(launch(pitfalls.evaluate_together, world_size, w, shards, device=device))

# %% [markdown] lang="en"
# ## 4. All ranks load the same rows
#
# **Symptom.** Four GPUs, and an **epoch**, one pass over all rows, takes as many steps as with one.
# Where the ranks don't shuffle, or all shuffle alike, their losses are equal to the last digit.
#
# Here is a data loader as everybody writes it for one device. Rank and world size are nowhere in it:

# %% [markdown] lang="zh"
# ## 4. 大家读的是同样的行
#
# **症状**：用了四块 GPU，走完一个**轮次**（epoch，即把所有的行过一遍）的步数却与一块时一样多。
# 如果各进程都不打乱次序，或者打乱得一样，它们的损失直到最后一位都相同。
#
# 下面的数据加载器，在一台设备上人人都这样写。里面既没有进程编号，也没有进程总数：

# %%
print(inspect.getsource(pitfalls.gradient_of))
print(inspect.getsource(pitfalls.load_without_sampler))

# %% check="same_rows"
loaded = launch(pitfalls.load_without_sampler, world_size, w, x, y, device=device)
torch.stack([numbers for numbers, found in loaded])  # (world_size, rows a rank)

# %% [markdown] lang="en"
# DDP takes the mean of the ranks' gradients. Which rows does it speak for?

# %% [markdown] lang="zh"
# DDP 对各进程的梯度取平均。这个平均代表了哪些行？

# %% check="same_rows_gradient"
torch.stack([found for numbers, found in loaded])  # (world_size, features)

# %% [markdown] lang="en"
# The mean of $W$ equal gradients is the gradient of one shard: the ranks agree with each other, and
# not with one device. **Remedy**: a `DistributedSampler` deals out the rows like cards. It asks the
# process group for rank and world size.

# %% [markdown] lang="zh"
# $W$ 个相同梯度的平均，就是一个分片的梯度：各进程彼此一致，却与一台设备不一致。
# **办法**：用 `DistributedSampler`，它像发牌一样把行轮流发给各进程；
# 编号和进程总数由它向进程组查询。

# %%
print(inspect.getsource(pitfalls.load_with_sampler))

# %% check="dealt"
dealt = launch(pitfalls.load_with_sampler, world_size, w, x, y, device=device)
hands = torch.stack([numbers for numbers, found in dealt])  # (world_size, rows a rank)
hands

# %% [markdown] lang="en"
# ## 5. Rows that count twice
#
# **Symptom.** The evaluation counts more rows than there are.
#
# Look at the last rows above once more. How often was each row of the batch dealt out?

# %% [markdown] lang="zh"
# ## 5. 算了两遍的行
#
# **症状**：评估时数出来的行数，比数据里的还多。
#
# 再看看上面各进程最后的几行。批量中的每一行各发出了几次？

# %% check="times_dealt"
times = torch.bincount(hands.flatten(), minlength=batch)  # (batch,)
times

# %% [markdown] lang="en"
# The sampler gives all ranks equally many rows. Where $W$ does not divide $n$ it starts again from
# the beginning, which is called **padding**. So the gradient is a mean over rows of which some count
# twice:

# %% [markdown] lang="zh"
# 采样器给每个进程同样多的行；$n$ 不能被 $W$ 整除时，它就从头再发，叫作**补齐**（padding）。
# 所以这个梯度所平均的各行中，有些算了两遍：

# %% check="padded_gradient"
torch.stack([found for numbers, found in dealt])  # (world_size, features)

# %% [markdown] lang="en"
# `drop_last=True` has the opposite fault. (Outside a process group the sampler is told rank and
# world size.)

# %% [markdown] lang="zh"
# `drop_last=True` 的毛病正相反。（不在进程组里时，要把编号和进程总数告诉采样器。）

# %% check="times_dropped"
options = dict(num_replicas=world_size, shuffle=False, drop_last=True)
ranks = range(world_size)
kept = [list(DistributedSampler(range(batch), rank=r, **options)) for r in ranks]
torch.bincount(torch.tensor(kept, dtype=torch.long).flatten(), minlength=batch)

# %% tags=["figure"]
figure, panels = plt.subplots(
    3, 1, figsize=(6, 1.3 + 0.6 * world_size), sharex=True, layout="constrained"
)
colors = plt.matplotlib.colors.ListedColormap(["#f4f4f4", BLUE, RED])
ways = {"(a)": [numbers for numbers, found in loaded], "(b)": hands, "(c)": kept}
for panel, (name, way) in zip(panels, ways.items()):
    table = np.zeros((world_size, batch))  # 1 where a rank has a row
    for r, numbers in enumerate(way):
        table[r, list(numbers)] = 1
    table *= np.minimum(table.sum(axis=0), 2)  # 2 where others have it too
    edges = np.arange(batch + 1) - 0.5, np.arange(world_size + 1) - 0.5
    panel.pcolormesh(*edges, table, cmap=colors, vmin=0, vmax=2, edgecolors="w", lw=0.6)
    panel.set(yticks=ranks, ylabel="rank")
    panel.set_title(name, loc="left", fontsize="medium")
    panel.invert_yaxis()
panels[-1].set(xlabel="row")
panels[-1].xaxis.get_major_locator().set_params(integer=True)
plt.show()

# %% [markdown] lang="en"
# **Figure.** Who loads which row: (a) without a sampler, (b) with one, (c) with `drop_last=True`.
# Blue rows are with one rank, red ones with several. In (c) a column that is grey from top to
# bottom is a row that nobody loads.

# %% [markdown] lang="zh"
# **图**。哪个进程读哪一行：(a) 没有采样器，(b) 有采样器，(c) `drop_last=True`。
# 蓝色的行只在一个进程里，红色的行同时在几个进程里。(c) 中从上到下全灰的一列，是哪个进程都没有读的行。

# %% [markdown] lang="en"
# In a long training this hardly matters; in an evaluation, and in a comparison with one device, it
# is an error. **Remedy**: a row that was dealt out $k$ times counts $1/k$ each time. (An evaluation
# can do without the sampler: rank $r$ takes the rows `range(r, n, W)`, and the ranks add up sums and
# counts as in section 3.)

# %% [markdown] lang="zh"
# 在漫长的训练里，这无伤大雅；在评估时，以及与一台设备作比较时，这就是错误。
# **办法**：发出 $k$ 次的行，每次只算 $1/k$。
# （评估时也可以不用采样器：进程 $r$ 取 `range(r, n, W)` 这些行，再像第 3 节那样传总和与个数。）

# %%
print(inspect.getsource(pitfalls.weigh_rows))

# %% check="weighed_gradient"
weighed = launch(pitfalls.weigh_rows, world_size, w, x, y, times, device=device)
torch.stack(weighed)  # (world_size, features)

# %% [markdown] lang="en"
# ## 6. Each rank begins elsewhere
#
# **Symptom.** The gradients are equal on all ranks, to the last bit and at every step. The models
# are not.
#
# This time the all-reduce is right. But each rank has drawn its first weights itself, with a seed
# of its own:

# %% [markdown] lang="zh"
# ## 6. 起点不同
#
# **症状**：每一步的梯度在各进程上都一位不差，模型却不相同。
#
# 这一次全归约没有错，但每个进程用自己的种子产生了初始权重：

# %%
draws = [np.random.default_rng([seed, r]).uniform(0.5, 1, features) for r in ranks]
drawn = tensor(np.stack(draws))  # (world_size, features)

# %%
print(inspect.getsource(pitfalls.descend))
print(inspect.getsource(pitfalls.begin_apart))

# %% [markdown] lang="en"
# Does training bring the ranks together? First the weights before it, a row for each rank, then the
# weights after it.

# %% [markdown] lang="zh"
# 训练会让各进程渐渐靠拢吗？先是训练前的权重，每个进程一行；再是训练后的权重。

# %% check="begun_apart"
task = (drawn, shards, steps, lr)
trained = launch(pitfalls.begin_apart, world_size, *task, device=device)
torch.stack([drawn.cpu(), torch.stack(trained)])  # (2, world_size, features)

# %% [markdown] lang="en"
# No. Equal steps keep the distance: after training, the rows differ by what they differed before.
# And the gradient that they share belongs to none of these models.
#
# **Remedy**: let rank 0's weights be everybody's. By hand that is a `broadcast`; DDP does it when
# it wraps a network.

# %% [markdown] lang="zh"
# 不会。步子相同，距离就不变：训练之后各行之差，与训练之前完全一样。
# 而且，大家共用的梯度不属于其中任何一个模型。
#
# **办法**：都用进程 0 的权重。亲手做，就是一次**广播通信**（`broadcast`）；
# 用 DDP，它在包装网络时就做了。

# %%
print(inspect.getsource(pitfalls.begin_together))

# %% [markdown] lang="en"
# What DDP has made of the ranks' weights, before the first step:

# %% [markdown] lang="zh"
# 第一步之前，DDP 把各进程的权重变成了：

# %% check="wrapped"
begun = launch(pitfalls.begin_together, world_size, *task, device=device)
torch.stack([wrapped for wrapped, trained in begun])  # (world_size, features)

# %% [markdown] lang="en"
# And the same program as before, after the broadcast by hand:

# %% [markdown] lang="zh"
# 亲手广播之后，再运行与前面相同的训练：

# %% check="begun_together"
torch.stack([trained for wrapped, trained in begun])  # (world_size, features)

# %% [markdown] lang="en"
# ## 7. Statistics of a part
#
# **Symptom.** Gradients and weights are equal on all ranks, and still the model depends on the
# number of GPUs. It gets worse as the shards get smaller.
#
# **Batch normalization** subtracts from each column the mean of the batch, and divides by the root
# of its variance. On each rank, the batch is the shard. These readings climb by about 3 from row to
# row, and each rank gets five of them, or six.

# %% [markdown] lang="zh"
# ## 7. 局部的统计量
#
# **症状**：各进程的梯度和权重都相同，模型却仍与 GPU 的块数有关；分片越小，情况越糟。
#
# **批量归一化**从每一列减去批量的均值，再除以批量方差的平方根。
# 可在每个进程上，所谓批量只是一个分片。
# 下面的读数每行大约增大 3，每个进程分到五行或六行。

# %%
rng = np.random.default_rng(seed)
count = 5 * world_size + 1  # uneven for two ranks and more
climb = 3 * np.arange(count)[:, None] + rng.integers(0, 3, (count, features))
readings = tensor(climb).tensor_split(world_size)  # (n_local, features) each

# %%
print(inspect.getsource(pitfalls.normalize))

# %% [markdown] lang="en"
# With `momentum=1` the layer forgets what was before, and keeps the statistics of this batch.
# (A row for each rank. The variance is divided by $n - 1$.) Will these variances be larger or
# smaller than that of all readings?

# %% [markdown] lang="zh"
# `momentum=1` 使这一层忘掉以前的值，只留下这个批量的统计量。
# （每个进程一行。方差除以的是 $n - 1$。）这些方差会比全部读数的方差大，还是小？

# %% check="statistics_apart"
layer = nn.BatchNorm1d(features, momentum=1.0, dtype=w.dtype)
found = launch(pitfalls.normalize, world_size, layer, readings, device=device)
mean, var = map(torch.stack, zip(*found))  # (world_size, features) each
{"mean": mean, "var": var}

# %% [markdown] lang="en"
# Smaller, unless there is one rank only. DDP does not mend it: before each forward pass it
# copies rank 0's statistics to all ranks, those of one shard.
#
# **Remedy**: add up over the ranks, twice. First sums and counts, which give the mean of all rows;
# then the squares of the distances to *this* mean. (The mean of the ranks' variances would not do:
# it lacks the spread between the ranks.)

# %% [markdown] lang="zh"
# 更小，除非只有一个进程。DDP 也补救不了：每次前向传播之前，
# 它把进程 0 的统计量复制给所有进程，那仍只是一个分片的统计量。
#
# **办法**：在各进程之间求两次和。先求总和与行数，得到所有行的均值；
# 再求各行与**这个**均值之差的平方和。
# （把各进程的方差平均一下是不行的：那样就缺了各进程均值之间的差别。）

# %%
print(inspect.getsource(pitfalls.normalize_together))

# %% check="statistics"
found = launch(pitfalls.normalize_together, world_size, readings, device=device)
mean, var = map(torch.stack, zip(*found))  # (world_size, features) each
{"mean": mean, "var": var}

# %% [markdown] lang="en"
# In a whole network one line does it: `convert_sync_batchnorm` puts a **SyncBatchNorm** in place of
# each such layer. It refuses to work on the CPU, so only a run on GPUs compares it:

# %% [markdown] lang="zh"
# 对整个网络，只要一行 `convert_sync_batchnorm`，就能把每个这样的层换成
# **同步批量归一化**（SyncBatchNorm）。它不能在 CPU 上运行，所以只有用 GPU 时才比较它：

# %% check="sync_batch_norm"
synced = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
if on_gpus:
    found = launch(pitfalls.normalize, world_size, synced, readings, device=device)
else:
    print("SyncBatchNorm is not tested in this run; below is what was found by hand.")
mean, var = map(torch.stack, zip(*found))  # (world_size, features) each
{"mean": mean, "var": var}

# %% [markdown] lang="en"
# ## 8. Every epoch the same
#
# **Symptom.** The curve of the training loss repeats itself from epoch to epoch, like wallpaper.
#
# A sampler that shuffles draws its order from its seed and from the number of the epoch. Somebody
# has to tell it that number. Here are 840 rows, which 1 to 8 ranks share evenly. In `steps` epochs,
# how many orders does rank 0 get to see, and how many different rows?

# %% [markdown] lang="zh"
# ## 8. 每一轮都一样
#
# **症状**：训练损失的曲线每一轮都重复同样的花纹，像墙纸一样。
#
# 会打乱次序的采样器，由种子和轮次的编号决定次序。这个编号要有人告诉它。
# 下面有 840 行，1 到 8 个进程都能平分。`steps` 轮之中，进程 0 会见到几种次序、多少个不同的行？


# %%
def differences(orders):
    return len(set(map(tuple, orders))), len(set().union(*orders))  # orders, rows


# %% check="forgotten"
sampler = DistributedSampler(range(840), world_size, rank=0, seed=seed)
differences([list(sampler) for epoch in range(steps)])

# %% [markdown] lang="en"
# One order, and rank 0 never meets the rows of the others. **Remedy**: `set_epoch`, at the
# beginning of each epoch. The orders come from torch's own generator and can't be derived, so they
# are given:

# %% [markdown] lang="zh"
# 只有一种次序，而且进程 0 永远见不到其他进程的行。**办法**：每一轮开始时调用 `set_epoch`。
# 这些次序来自 torch 自己的随机数生成器，无法推导，所以是给定的：

# %% given="shuffled"
orders = []
for epoch in range(steps):
    sampler.set_epoch(epoch)
    orders.append(list(sampler))
torch.tensor(orders)  # (steps, 840 / W)

# %% [markdown] lang="en"
# How many orders are there now, and how many rows has rank 0 met?

# %% [markdown] lang="zh"
# 现在有几种次序？进程 0 见过多少行？

# %% check="remembered"
differences(orders)

# %% [markdown] lang="en"
# And within an epoch, all ranks together: is each of the 840 rows dealt out once? Here are the
# smallest and the largest count.

# %% [markdown] lang="zh"
# 在一轮之内，各进程合起来看：840 行是不是每行恰好发出一次？下面是最少和最多的次数。

# %% check="whole_epoch"
hands = [DistributedSampler(range(840), world_size, rank=r, seed=seed) for r in ranks]
dealt_rows = torch.tensor([list(hand) for hand in hands])  # (world_size, 840 / W)
counts = torch.bincount(dealt_rows.flatten(), minlength=840)
counts.min(), counts.max()

# %% [markdown] lang="en"
# ## 9. Microbatches of two sizes
#
# **Symptom.** With gradients that accumulate over microbatches, results change a little with the
# number of microbatches, but only for some batch sizes.
#
# torch's pipeline schedule takes the mean of the microbatches' gradients. Where these are not
# equally large, it stops with an error on several ranks, and says nothing on one. So one rank is
# what we take:

# %% [markdown] lang="zh"
# ## 9. 大小不等的微批
#
# **症状**：梯度按微批累积时，结果随微批的个数略有变化，而且只在某些批量大小下才这样。
#
# torch 的流水线调度对各微批的梯度取平均。微批大小不等时，在多个进程上它会报错停下，
# 在一个进程上却一声不响。所以我们就用一个进程：

# %%
print(inspect.getsource(pipelined))

# %% check="scheduled"
pieces = min(microbatches, batch)  # a microbatch has at least one row
launch(pipelined, 1, w, x, y, pieces, device=device)[0]

# %% [markdown] lang="en"
# It is the mean of means again, and needs no second rank. You make the same mistake when you
# accumulate the gradients of uneven pieces on one GPU, and divide each mean loss by their number.
# **Remedy**: a number of pieces that divides the batch; or sums, divided by the rows of the
# *whole* batch:

# %% [markdown] lang="zh"
# 这又是平均的平均，一个进程就能犯。在一块 GPU 上，对大小不等的几份累积梯度，
# 再把每份的平均损失除以份数，犯的也是同样的错误。
# **办法**：让微批的个数整除批量大小；或者求和，再除以**整个**批量的行数：

# %% check="accumulated"
network = Regression(w)
for part, target in zip(x.tensor_split(pieces), y.tensor_split(pieces)):
    loss = ((network(part) - target) ** 2).sum() / batch
    loss.backward()  # adds to network.w.grad
network.w.grad

# %% [markdown] lang="en"
# ## Nine mistakes on a page
#
# | | symptom | cause | remedy | how to notice |
# |---|---|---|---|---|
# | 1 | losses go down, the saved model is poor | no all-reduce: `no_sync()` around the last backward pass | last pass outside | compare **weights** between ranks |
# | 2 | with more ranks the loss explodes, or Adam hides it | sum for mean | weights $n_r / n$ | compare the **gradient** with one device |
# | 3 | validation depends on the number of ranks, or is NaN | mean of means | all-reduce sum and count | a batch that ranks don't share evenly |
# | 4 | more ranks, as many steps an epoch | no sampler | `DistributedSampler` | **gather row numbers**, count them |
# | 5 | more rows evaluated than there are | padding | count $1/k$ each | gather row numbers, count them |
# | 6 | equal gradients, different models | own initial weights | `broadcast`, or DDP | compare weights **before** the first step |
# | 7 | model depends on the size of the shards | statistics per shard | `SyncBatchNorm` | shards that differ: sorted rows |
# | 8 | every epoch's curve is the same | no `set_epoch` | call it each epoch | compare the orders of two epochs |
# | 9 | gradient depends on the number of microbatches | mean over uneven pieces | sums, divided by $n$ | a batch that they don't divide |

# %% [markdown] lang="zh"
# ## 一页看懂九种错误
#
# | | 症状 | 原因 | 办法 | 怎样发现 |
# |---|---|---|---|---|
# | 1 | 损失下降，保存的模型却不好 | 没有全归约：最后一次反向传播也在 `no_sync()` 里 | 把最后一次放在外面 | 比较各进程的**权重** |
# | 2 | 进程一多，损失就爆炸，或被 Adam 掩盖 | 该取平均却求和 | 权重 $n_r / n$ | 与一台设备比较**梯度** |
# | 3 | 验证结果随进程数而变，或是 NaN | 平均的平均 | 对总和与个数做全归约 | 用不能平分的批量试一次 |
# | 4 | 进程增多，每一轮的步数不变 | 没有采样器 | `DistributedSampler` | **收集行号**，数一数 |
# | 5 | 评估的行数比数据还多 | 补齐 | 每次算 $1/k$ | 收集行号，数一数 |
# | 6 | 梯度相同，模型不同 | 初始权重各不相同 | `broadcast`，或 DDP | 第一步**之前**比较权重 |
# | 7 | 模型与分片大小有关 | 统计量只来自分片 | `SyncBatchNorm` | 用互不相似的分片：排好序的行 |
# | 8 | 每一轮的曲线都一样 | 没有 `set_epoch` | 每轮调用一次 | 比较两轮的次序 |
# | 9 | 梯度随微批的个数而变 | 对大小不等的部分取平均 | 求和，再除以 $n$ | 用不能整除的批量试一次 |

# %% [markdown] lang="en"
# One habit finds all nine: do the same on one device, with an awkward batch whose rows are not
# alike, and compare numbers instead of curves: row numbers, weights, gradients. Comparing the ranks
# with each other is not enough. In 2 to 5 they agree, and are all wrong.

# %% [markdown] lang="zh"
# 有一个习惯能把九种错误都查出来：在一台设备上做同样的事，批量要取得除不尽，各行要互不相似，
# 比较的是数值而不是曲线：行号、权重、梯度。只在进程之间互相比较是不够的：
# 在第 2 到第 5 种情形里，各进程完全一致，却全都错了。

# %% [markdown] lang="en"
# ## Exercises

# %% [markdown] lang="zh"
# ## 练习

# %% tags=["setup"]
lengths = np.random.default_rng(seed).integers(1, 9, batch)  # words in each row
words = [part.tolist() for part in np.array_split(lengths, world_size)]
climb = 3 * np.arange(5 * world_size + 1)
climb += np.random.default_rng(seed).integers(0, 3, len(climb))
parts = np.array_split(climb, world_size)  # a column of readings, cut for the ranks
counts = [len(part) for part in parts]
means = [part.mean().item() for part in parts]
variances = [part.var(ddof=1).item() for part in parts]

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. Sentences of unequal length
#
# Each row is a sentence, and `words[r]` lists the lengths of the sentences on rank $r$. Each rank
# takes the mean loss over its *words*. By which factor must rank $r$ multiply it, so that DDP finds
# the gradient of the mean over all words?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 长短不一的句子
#
# 每一行是一个句子，`words[r]` 是进程 $r$ 上各句子的长度。每个进程的损失是对自己的**词**取的平均。
# 进程 $r$ 要给它乘上什么因子，DDP 才会得到对所有词取平均的损失的梯度？

# %% tags=["exercise"]
factors = [... for r in range(world_size)]
factors

# %% tags=["solution"] check="factors"
total = sum(sum(part) for part in words)
factors = [sum(part) * world_size / total for part in words]
factors

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. Deal the cards yourself
#
# List the rows that a `DistributedSampler` with `shuffle=False` deals to the last rank, in its
# order, without torch. There are `batch` rows; mind the padding.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 自己发牌
#
# 不用 torch，依次列出 `DistributedSampler`（`shuffle=False`）发给最后一个进程的行号。
# 一共有 `batch` 行，别忘了补齐。

# %% tags=["exercise"]
size = -(-batch // world_size)  # rows a rank, rounded up
last_hand = [... for i in range(size)]
last_hand

# %% tags=["solution"] check="last_hand"
size = -(-batch // world_size)
last_hand = [(world_size - 1 + i * world_size) % batch for i in range(size)]
last_hand

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. The variance of all, from the variances of the parts
#
# Each rank sends three numbers for its column of readings: `counts[r]`, `means[r]` and
# `variances[r]` (divided by `counts[r] - 1`). Find mean and variance of all readings from these
# numbers alone. What must be added to the variances within the ranks?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 由各部分的方差求总方差
#
# 每个进程为自己的一列读数送来三个数：`counts[r]`、`means[r]` 和 `variances[r]`
# （除以的是 `counts[r] - 1`）。只用这些数，求全部读数的均值和方差。
# 在各进程内部的方差之外，还要加上什么？

# %% tags=["exercise"]
n = sum(counts)
mean = ...
variance = ...  # divided by n - 1
combined = (mean, variance)
combined

# %% tags=["solution"] check="combined"
n = sum(counts)
mean = sum(counts[r] * means[r] for r in range(world_size)) / n
within = sum((counts[r] - 1) * variances[r] for r in range(world_size))
between = sum(counts[r] * (means[r] - mean) ** 2 for r in range(world_size))
combined = (mean, (within + between) / (n - 1))
combined

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `batch=24`: which of the nine mistakes do no harm now?
# - `world_size=4, batch=3`: who has no rows, and what does each section make of it?
# - `world_size=1`: which mistakes are left?
# - `lr=1`, `steps=20`: how far apart are the ranks in sections 1 and 6?
# - In `pitfalls.py`, drop `* dist.get_world_size()` from `weigh_rows`. How wrong is the gradient
#   now, and why?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `batch=24`：九种错误中，现在哪些没有害处？
# - `world_size=4, batch=3`：谁没有行？每一节各会怎样？
# - `world_size=1`：还剩下哪些错误？
# - `lr=1`、`steps=20`：第 1 节和第 6 节中，各进程相距多远？
# - 在 `pitfalls.py` 里，去掉 `weigh_rows` 中的 `* dist.get_world_size()`：
#   梯度错成了原来的几分之几？为什么？
