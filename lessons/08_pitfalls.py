# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 8}
#     prerequisites: [data_parallel]
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
# In this lesson no program fails. There is no error and no warning, and all GPUs are busy. Ten times,
# the result is wrong.
#
# After this lesson you know each of the ten mistakes by the values that it leaves behind, and you have
# a habit that finds nine of them: compare with one device.

# %% [markdown] lang="zh"
# # 并行训练的陷阱
#
# 这一课里的程序都能跑完：没有报错，没有警告，所有 GPU 都在忙。但有十次，结果是错的。
#
# 学完这一课，你能从数值上认出这十种错误，并养成一个能查出其中九种的习惯：与一台设备的结果作比较。

# %% [markdown] lang="en"
# Each mistake is shown twice: first wrong, then repaired. Before you run the wrong cell, predict what it
# will show. `world_size` is again the number of processes.

# %% [markdown] lang="zh"
# 每种错误都写两遍：先错，后对。运行错误写法之前，先预测输出。`world_size` 仍是进程总数。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # samples in one batch, over all processes
features: int = 4  # elements of a sample
microbatches: int = 4  # pieces of a batch in a pipeline
steps: int = 5  # training steps, and epochs
lr: float = 0.1  # learning rate
seed: int = 0  # where the random draws begin
dtype: str = "float64"  # dtype of data and weights
device: str = "cpu"  # what the processes compute on: cpu or cuda

# %% tags=["setup"]
import numpy as np
import torch
import torch.distributed as dist

from parallel.cells import launch_cell

# %%
import inspect

import matplotlib.pyplot as plt
from torch import nn
from torch.utils.data import DistributedSampler

from parallel import launch, pitfalls
from parallel.microbatches import pipelined
from parallel.pitfalls import Regression

torch.set_printoptions(threshold=40, edgeitems=2)  # a long tensor shall not fill a page

# %% [markdown] lang="en"
# ## The right answer first
#
# Even the smallest network shows these mistakes. Therefore we take a linear regression: the mean squared
# error of $\mathbf{X}\mathbf{w}$ over $n$ samples, with the gradient
#
# $$\nabla L = \frac{2}{n} \mathbf{X}^\top (\mathbf{X}\mathbf{w} - \mathbf{y})$$
#
# The samples are in the order in which they were collected, and meanwhile the targets have grown by one.
# So the first samples differ from the last. That is common, and it brings mistakes to light.

# %% [markdown] lang="zh"
# ## 先求正确答案
#
# 再小的网络也会出现这些错误。所以我们取线性回归：$\mathbf{X}\mathbf{w}$ 在 $n$ 个样本上的均方误差，梯度是
#
# $$\nabla L = \frac{2}{n} \mathbf{X}^\top (\mathbf{X}\mathbf{w} - \mathbf{y})$$
#
# 样本按采集的先后排列，其间目标值渐渐增大了 1。所以前面的样本与后面的不同：这很常见，也正好让错误暴露出来。


# %%
def tensor(numbers):
    return torch.tensor(numbers, dtype=getattr(torch, dtype), device=device)


rng = np.random.default_rng(seed)
w = tensor(rng.uniform(0.5, 1, features))
rows = rng.uniform(0.5, 1, (batch, features)) / features**0.5
x = tensor(rows)  # (batch, features)
y = tensor(2 * rows.sum(axis=1) + np.linspace(0, 1, batch))  # (batch,)

# %% [markdown] lang="en"
# One device computes this gradient. Together, the ranks should compute the same.

# %% [markdown] lang="zh"
# 一台设备算出的梯度如下。各进程合起来，也应当得到它。

# %% check="gradient"
network = Regression(w)
((network(x) - y) ** 2).mean().backward()
network.w.grad

# %% [markdown] lang="en"
# These are the gradients of the shards alone, each on the device of its rank. They differ. (A shard
# without samples, for example of 3 samples for 4 ranks, counts as zero.)

# %% [markdown] lang="zh"
# 各个分片单独的梯度如下，分别在各进程的设备上计算。它们并不相同。（没有样本的分片按零计，例如 3 个样本分给 4 个进程时。）

# %% check="shard_gradients"
shards = list(zip(x.tensor_split(world_size), y.tensor_split(world_size)))
on_gpus = torch.device(device).type == "cuda"
devices = [f"cuda:{r}" if on_gpus else "cpu" for r in range(world_size)]
networks = [Regression(w).to(d) for d in devices]
for net, d, (part, target) in zip(networks, devices, shards):
    pitfalls.local_loss(net, part.to(d), target.to(d)).backward()
[net.w.grad for net in networks]

# %% [markdown] lang="en"
# The rank programs of this lesson share these parts:

# %% [markdown] lang="zh"
# 这一课的各个程序共用下面几段：

# %%
print(inspect.getsource(Regression))
print(inspect.getsource(pitfalls.my_shard))
print(inspect.getsource(pitfalls.my_share))
print(inspect.getsource(pitfalls.local_loss))

# %% stdout="one_rank"
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# ## 1. The ranks never communicate
#
# **Symptom.** On every rank the loss falls. Yet the saved model is only as good as if it had seen a part
# of the data.
#
# `no_sync()` is meant for gradients that accumulate over several backward passes: no communication until
# the last one. Here the last pass is inside as well.

# %% [markdown] lang="zh"
# ## 1. 各练各的
#
# **症状**：每个进程上的损失都在下降，保存下来的模型却好像只见过一部分数据。
#
# `no_sync()` 是为梯度累积准备的：前几次反向传播不通信，到最后一次才通信。这里连最后一次也写在了里面。

# %%
print(inspect.getsource(pitfalls.train_apart))

# %% [markdown] lang="en"
# The loss of each rank (one row per rank) in the first step and in the last. Does anything look wrong?

# %% [markdown] lang="zh"
# 每个进程在第一步和最后一步的损失（每个进程一行）。看得出什么问题吗？

# %% check="own_losses"
task = (w, shards, steps, lr)
apart = launch(pitfalls.train_apart, world_size, *task, device=device)
torch.stack([losses[[0, -1]] for losses, path in apart])  # (world_size, 2)

# %% [markdown] lang="en"
# Now the weights after the last step, one row per rank. They were equal at the start.

# %% [markdown] lang="zh"
# 再看最后一步之后的权重，每个进程一行。它们开始时是相同的。

# %% tags=["predict"] check="drifted"
torch.stack([path[-1] for losses, path in apart])  # (world_size, features)

# %% [markdown] lang="en"
# Each rank has trained its own model, and rank 0 saves one of $W$. (Calling `replica.module(x)` instead of
# `replica(x)` has the same effect, because DDP does not learn of that pass.) **Remedy**: the last forward
# and backward pass must be outside `no_sync()` and go through DDP.

# %% [markdown] lang="zh"
# 每个进程各自训练了一个模型，进程 0 保存的只是 $W$ 个中的一个。（把 `replica(x)` 写成 `replica.module(x)`，结果也是这样，因为 DDP 不知道有过这次前向传播。）**办法**：最后一次前向传播和反向传播要放在 `no_sync()` 之外，并且经过 DDP。

# %%
print(inspect.getsource(pitfalls.train_together))

# %% check="together"
together = launch(pitfalls.train_together, world_size, *task, device=device)
torch.stack([path[-1] for path in together])  # (world_size, features)

# %% [markdown] lang="en"
# One weight after each step: of each rank that trains alone, and of all ranks together.

# %% [markdown] lang="zh"
# 同一个权重在每一步之后的值：先是各自训练的每个进程，再是所有进程一起训练。

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
# **Figure.** One weight, step by step. Each blue line is a rank that trains alone, with its number at the
# end; the red dashes are all ranks together, which is the weight of one device.

# %% [markdown] lang="zh"
# **图**。一个权重逐步的变化。每条蓝线是一个各练各的进程，末端是它的编号；红色虚线是所有进程一起训练，与一台设备上的权重相同。

# %% [markdown] lang="en"
# ## 2. Sum instead of mean
#
# **Symptom.** Training works on one GPU, is shaky on two, and on eight the loss explodes, until somebody
# divides the learning rate by eight. (Adam divides by the size of the gradients, and hides the mistake.)
#
# All-reduce computes a sum unless told otherwise. How large is this gradient, compared with the right
# one?

# %% [markdown] lang="zh"
# ## 2. 该取平均，却求了和
#
# **症状**：一块 GPU 上训练正常，两块有些不稳，八块时损失爆炸，直到有人把学习率除以八。（Adam 会除以梯度的大小，把这个错误掩盖起来。）
#
# 没有另外说明时，全归约做的是求和。与正确的梯度相比，这个梯度有多大？

# %%
print(inspect.getsource(pitfalls.add_gradients))

# %% tags=["predict"] check="added"
added = launch(pitfalls.add_gradients, world_size, w, shards, device=device)
torch.stack(added)  # (world_size, features)

# %% [markdown] lang="en"
# About $W$ times as large, and equal on all ranks: comparing the ranks with each other finds nothing.
# **Remedy**: each rank weights its loss with its share $n_r / n$ of the samples. The shares add up to 1, so
# the sum becomes a mean. (DDP divides by $W$ itself; there the weight is $n_r W / n$.)

# %% [markdown] lang="zh"
# 大约是 $W$ 倍，而且各进程都一样：只在进程之间互相比较，是查不出来的。**办法**：每个进程的损失乘以自己样本所占的份额 $n_r / n$。份额之和为 1，求和就成了平均。（DDP 自己会除以 $W$，所以那里的权重是 $n_r W / n$。）

# %%
print(inspect.getsource(pitfalls.average_gradients))

# %% check="averaged"
averaged = launch(pitfalls.average_gradients, world_size, w, shards, device=device)
torch.stack(averaged)  # (world_size, features)

# %% [markdown] lang="en"
# ## 3. The mean of means
#
# **Symptom.** The validation loss changes with the number of GPUs, although the model does not. On some
# data sets it is NaN.
#
# Lesson 05 showed what a plain mean over uneven shards does to the gradient. The same mistake is possible
# wherever ranks report a mean, of losses or of correct answers.

# %% [markdown] lang="zh"
# ## 3. 平均的平均
#
# **症状**：模型没变，验证集上的损失却随 GPU 的块数而变；在某些数据集上还会变成 NaN。
#
# 在第 05 课我们看到，分片大小不等时，普通平均会怎样影响梯度。只要各进程汇报的是平均值，不论是平均损失还是准确率，都会出现同样的错误。

# %%
print(inspect.getsource(pitfalls.evaluate_apart))

# %% [markdown] lang="en"
# The loss of each rank, and the mean of these losses on each rank:

# %% [markdown] lang="zh"
# 每个进程自己的损失，以及各进程算出的这些损失的平均：

# %% check="evaluated_apart"
found = launch(pitfalls.evaluate_apart, world_size, w, shards, device=device)
torch.stack([loss for loss, mean in found]), torch.stack([mean for loss, mean in found])

# %% [markdown] lang="en"
# A rank with one sample less counts as much as the others, and a rank without samples reports 0/0.
# **Remedy**: never communicate a mean. Communicate the sum and the count, and divide at the end.

# %% [markdown] lang="zh"
# 少一个样本的进程与其他进程所占的比重一样；一个样本也没有的进程，只能报 0/0。**办法**：不要传平均值，要传总和与个数，最后再相除。

# %%
print(inspect.getsource(pitfalls.evaluate_together))

# %% check="evaluated"
torch.stack(launch(pitfalls.evaluate_together, world_size, w, shards, device=device))

# %% [markdown] lang="en"
# ## 4. All ranks load the same samples
#
# **Symptom.** With four GPUs an **epoch**, one pass over all samples, takes as many steps as with one. If
# the ranks do not shuffle, or all shuffle alike, their losses are equal to the last digit.
#
# This is a data loader as everybody writes it for one device. Rank and world size do not occur in it:

# %% [markdown] lang="zh"
# ## 4. 各进程读的是同样的样本
#
# **症状**：用了四块 GPU，一个**轮次**（epoch，即把所有样本过一遍）的步数却与一块时一样多。如果各进程都不打乱次序，或者打乱得一样，它们的损失直到最后一位都相同。
#
# 下面的数据加载器，在一台设备上人人都这样写。里面既没有进程编号，也没有进程总数：

# %%
print(inspect.getsource(pitfalls.gradient_of))
print(inspect.getsource(pitfalls.load_without_sampler))

# %% check="same_samples"
loaded = launch(pitfalls.load_without_sampler, world_size, w, x, y, device=device)
torch.stack([numbers for numbers, found in loaded])  # (world_size, n_local)

# %% [markdown] lang="en"
# DDP takes the mean of the gradients of the ranks. Which samples does this mean represent?

# %% [markdown] lang="zh"
# DDP 对各进程的梯度取平均。这个平均代表了哪些样本？

# %% tags=["predict"] check="same_samples_gradient"
torch.stack([found for numbers, found in loaded])  # (world_size, features)

# %% [markdown] lang="en"
# The mean of $W$ equal gradients is the gradient of one shard: the ranks agree with each other, but not
# with one device. **Remedy**: a `DistributedSampler` deals the samples out like cards. It asks the process
# group for rank and world size.

# %% [markdown] lang="zh"
# $W$ 个相同梯度的平均，就是一个分片的梯度：各进程彼此一致，却与一台设备不一致。**办法**：用 `DistributedSampler`，它像发牌一样把样本轮流发给各进程；编号和进程总数由它向进程组查询。

# %%
print(inspect.getsource(pitfalls.load_with_sampler))

# %% check="dealt"
dealt = launch(pitfalls.load_with_sampler, world_size, w, x, y, device=device)
hands = torch.stack([numbers for numbers, found in dealt])  # (world_size, n_local)
hands

# %% [markdown] lang="en"
# ## 5. Samples that count twice
#
# **Symptom.** The evaluation counts more samples than there are.
#
# Look again at the last numbers of each rank above. How often was each sample of the batch dealt out?

# %% [markdown] lang="zh"
# ## 5. 算了两遍的样本
#
# **症状**：评估时数出来的样本，比数据里的还多。
#
# 再看看上面各进程最后的几个编号。批量中的每个样本各发出了几次？

# %% tags=["predict"] check="times_dealt"
times = torch.bincount(hands.flatten(), minlength=batch)  # (batch,)
times

# %% [markdown] lang="en"
# The sampler gives all ranks equally many samples. If $W$ does not divide $n$, it starts again from the
# beginning, which is called **padding**. So this gradient is a mean in which some samples count twice:

# %% [markdown] lang="zh"
# 采样器给每个进程同样多的样本；$n$ 不能被 $W$ 整除时，它就从头再发，这叫作**补齐**（padding）。所以在这个梯度所做的平均里，有些样本算了两遍：

# %% check="padded_gradient"
torch.stack([found for numbers, found in dealt])  # (world_size, features)

# %% [markdown] lang="en"
# `drop_last=True` has the opposite fault: it leaves samples out. (Outside a process group, rank and world
# size are arguments of the sampler.)

# %% [markdown] lang="zh"
# `drop_last=True` 的毛病正相反：它会漏掉样本。（不在进程组里时，要把编号和进程总数作为参数交给采样器。）

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
panels[-1].set(xlabel="sample")
panels[-1].xaxis.get_major_locator().set_params(integer=True)
plt.show()

# %% [markdown] lang="en"
# **Figure.** Which rank loads which sample: (a) without a sampler, (b) with a sampler, (c) with
# `drop_last=True`. Blue samples are on one rank, red ones on several. In (c), a column that is grey from
# top to bottom is a sample that nobody loads.

# %% [markdown] lang="zh"
# **图**。哪个进程读哪个样本：(a) 没有采样器，(b) 有采样器，(c) `drop_last=True`。蓝色的样本只在一个进程里，红色的同时在几个进程里。(c) 中从上到下全灰的一列，是哪个进程都没有读的样本。

# %% [markdown] lang="en"
# In a long training this hardly matters. In an evaluation, and in a comparison with one device, it is an
# error. **Remedy**: a sample that was dealt out $k$ times counts $1/k$ each time. (An evaluation can do
# without a sampler: rank $r$ takes the samples `range(r, n, W)`, and the ranks add sums and counts as in
# section 3.)

# %% [markdown] lang="zh"
# 在漫长的训练里，这无伤大雅；在评估时，以及与一台设备作比较时，这就是错误。**办法**：发出 $k$ 次的样本，每次只算 $1/k$。（评估时也可以不用采样器：进程 $r$ 取 `range(r, n, W)` 这些样本，再像第 3 节那样传总和与个数。）

# %%
print(inspect.getsource(pitfalls.weigh_samples))

# %% check="weighed_gradient"
weighed = launch(pitfalls.weigh_samples, world_size, w, x, y, times, device=device)
torch.stack(weighed)  # (world_size, features)

# %% [markdown] lang="en"
# ## 6. Different initial weights
#
# **Symptom.** In every step the gradients are equal on all ranks, to the last bit. The models are not.
#
# This time the all-reduce is right. But each rank has drawn its initial weights with a seed of its own:

# %% [markdown] lang="zh"
# ## 6. 初始权重不同
#
# **症状**：每一步的梯度在各进程上都完全相同，模型却不相同。
#
# 这一次全归约没有错，但每个进程用自己的种子产生了初始权重：

# %%
draws = [np.random.default_rng([seed, r]).uniform(0.5, 1, features) for r in ranks]
drawn = tensor(np.stack(draws))  # (world_size, features)

# %%
print(inspect.getsource(pitfalls.descend))
print(inspect.getsource(pitfalls.begin_apart))

# %% [markdown] lang="en"
# Does training bring the ranks together? First the weights before training, one row per rank, then the
# weights after it.

# %% [markdown] lang="zh"
# 训练会让各进程渐渐一致吗？先是训练前的权重，每个进程一行；再是训练后的权重。

# %% tags=["predict"] check="begun_apart"
task = (drawn, shards, steps, lr)
trained = launch(pitfalls.begin_apart, world_size, *task, device=device)
torch.stack([drawn.cpu(), torch.stack(trained)])  # (2, world_size, features)

# %% [markdown] lang="en"
# No. Identical updates preserve the gap: after training, the rows differ by as much as before. And the
# gradient that the ranks share belongs to none of these models.
#
# **Remedy**: start from the weights of rank 0 everywhere. By hand that takes a `broadcast`; DDP does it
# when it wraps a network.

# %% [markdown] lang="zh"
# 不会。更新完全相同，差距就保持不变：训练之后各行之差，与训练之前一样大。而且，大家共用的梯度不属于其中任何一个模型。
#
# **办法**：都从进程 0 的权重开始。亲手做，就是一次**广播通信**（`broadcast`）；用 DDP，它在包装网络时就做了。

# %%
print(inspect.getsource(pitfalls.begin_together))

# %% [markdown] lang="en"
# The weights of the ranks after DDP has wrapped the network, before the first step:

# %% [markdown] lang="zh"
# DDP 包装网络之后、第一步之前，各进程的权重是：

# %% check="wrapped"
begun = launch(pitfalls.begin_together, world_size, *task, device=device)
torch.stack([wrapped for wrapped, trained in begun])  # (world_size, features)

# %% [markdown] lang="en"
# And the same training as before, after a broadcast by hand:

# %% [markdown] lang="zh"
# 亲手广播之后，再做与前面相同的训练：

# %% check="begun_together"
torch.stack([trained for wrapped, trained in begun])  # (world_size, features)

# %% [markdown] lang="en"
# ## 7. Statistics of a shard
#
# **Symptom.** Gradients and weights are equal on all ranks, but the model depends on the number of GPUs. It
# gets worse as the shards get smaller.
#
# **Batch normalization** subtracts the mean of the batch from each column and divides by the root of its
# variance. On each rank, the batch is only the shard. These readings grow by about 3 from one to the next,
# and each rank gets five or six of them.

# %% [markdown] lang="zh"
# ## 7. 局部的统计量
#
# **症状**：各进程的梯度和权重都相同，模型却仍与 GPU 的块数有关；分片越小，情况越糟。
#
# **批量归一化**从每一列减去批量的均值，再除以批量方差的平方根。可在每个进程上，所谓批量只是一个分片。下面的读数一个比一个大约增大 3，每个进程分到五个或六个。

# %%
rng = np.random.default_rng(seed)
count = 5 * world_size + 1  # uneven for two ranks and more
climb = 3 * np.arange(count)[:, None] + rng.integers(0, 3, (count, features))
readings = tensor(climb).tensor_split(world_size)  # (n_local, features) each

# %%
print(inspect.getsource(pitfalls.normalize))

# %% [markdown] lang="en"
# With `momentum=1` the layer forgets earlier values and keeps the statistics of this batch. (One row per
# rank. The variance is divided by $n - 1$.) Will these variances be larger or smaller than that of all
# readings?

# %% [markdown] lang="zh"
# `momentum=1` 使这一层忘掉以前的值，只留下这个批量的统计量。（每个进程一行。方差除以的是 $n - 1$。）这些方差会比全部读数的方差大，还是小？

# %% tags=["predict"] check="statistics_apart"
layer = nn.BatchNorm1d(features, momentum=1.0, dtype=w.dtype)
found = launch(pitfalls.normalize, world_size, layer, readings, device=device)
mean, var = map(torch.stack, zip(*found))  # (world_size, features) each
{"mean": mean, "var": var}

# %% [markdown] lang="en"
# Smaller, unless there is only one rank. DDP does not repair it: before each forward pass it copies the
# statistics of rank 0 to all ranks, and these are the statistics of one shard.
#
# **Remedy**: two all-reduces. The first, of sums and counts, gives the mean of all readings; the second is
# of the squared distances from *this* mean. (The mean of the ranks' variances would be too small, because
# it lacks the differences between the ranks.)

# %% [markdown] lang="zh"
# 更小，除非只有一个进程。DDP 也补救不了：每次前向传播之前，它把进程 0 的统计量复制给所有进程，那仍只是一个分片的统计量。
#
# **办法**：做两次全归约。第一次求总和与个数，得到全部读数的均值；第二次求各读数与**这个**均值之差的平方和。（对各进程的方差取平均是不够的：那样就缺了各进程之间的差别。）

# %%
print(inspect.getsource(pitfalls.normalize_together))

# %% check="statistics"
found = launch(pitfalls.normalize_together, world_size, readings, device=device)
mean, var = map(torch.stack, zip(*found))  # (world_size, features) each
{"mean": mean, "var": var}

# %% [markdown] lang="en"
# In a whole network one line does this: `convert_sync_batchnorm` replaces each such layer by a
# **SyncBatchNorm**. It works on GPUs only. On the CPU, the cell below therefore shows the result by hand
# again, and its check does *not* verify SyncBatchNorm:

# %% [markdown] lang="zh"
# 对整个网络，只要一行 `convert_sync_batchnorm`，就能把每个这样的层换成**同步批量归一化**（SyncBatchNorm）。它只能在 GPU 上运行。所以在 CPU 上，下面显示的仍是亲手实现的结果，它的检查项**不能**验证 SyncBatchNorm：

# %% check="sync_batch_norm"
synced = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
if on_gpus:
    found = launch(pitfalls.normalize, world_size, synced, readings, device=device)
else:
    print("SyncBatchNorm is not tested in this run: this is the result by hand.")
mean, var = map(torch.stack, zip(*found))  # (world_size, features) each
{"mean": mean, "var": var}

# %% [markdown] lang="en"
# ## 8. The same order in every epoch
#
# **Symptom.** The curve of the training loss repeats itself in every epoch.
#
# A sampler that shuffles draws the order from its seed and the number of the epoch. The program has to tell
# it that number. These are 840 samples, which 1 to 8 ranks share evenly. In `steps` epochs, how many orders
# does rank 0 get, and how many different samples?

# %% [markdown] lang="zh"
# ## 8. 每一轮的次序都一样
#
# **症状**：训练损失的曲线每一轮都重复同样的形状。
#
# 会打乱次序的采样器，由种子和轮次的编号决定次序。这个编号要由程序告诉它。下面有 840 个样本，1 到 8 个进程都能平分。`steps` 轮之中，进程 0 会得到几种次序、多少个不同的样本？


# %%
def differences(orders):
    return len(set(map(tuple, orders))), len(set().union(*orders))  # orders, samples


# %% tags=["predict"] check="forgotten"
sampler = DistributedSampler(range(840), world_size, rank=0, seed=seed)
differences([list(sampler) for epoch in range(steps)])

# %% [markdown] lang="en"
# One order, and rank 0 never gets the samples of the others. **Remedy**: call `set_epoch` at the beginning
# of each epoch. The orders come from torch's own generator and cannot be derived, so they are given:

# %% [markdown] lang="zh"
# 只有一种次序，而且进程 0 永远得不到其他进程的样本。**办法**：每一轮开始时调用 `set_epoch`。这些次序来自 torch 自己的随机数生成器，无法推导，所以是给定的：

# %% given="shuffled"
orders = []
for epoch in range(steps):
    sampler.set_epoch(epoch)
    orders.append(list(sampler))
torch.tensor(orders)  # (steps, 840 / W)

# %% [markdown] lang="en"
# How many orders are there now, and how many different samples has rank 0 seen?

# %% [markdown] lang="zh"
# 现在有几种次序？进程 0 见过多少个不同的样本？

# %% check="remembered"
differences(orders)

# %% [markdown] lang="en"
# And within one epoch, over all ranks: is each of the 840 samples dealt out once? The smallest and the
# largest count:

# %% [markdown] lang="zh"
# 在一轮之内，各进程合起来看：840 个样本是不是每个恰好发出一次？最少和最多的次数是：

# %% check="whole_epoch"
hands = [DistributedSampler(range(840), world_size, rank=r, seed=seed) for r in ranks]
dealt_samples = torch.tensor([list(hand) for hand in hands])  # (world_size, 840 / W)
counts = torch.bincount(dealt_samples.flatten(), minlength=840)
counts.min(), counts.max()

# %% [markdown] lang="en"
# ## 9. Microbatches of two sizes
#
# **Symptom.** With gradients that accumulate over microbatches, results change a little with the number of
# microbatches, but only for some batch sizes.
#
# The pipeline schedule of torch takes the mean of the microbatches' gradients. If these are not equally
# large, it stops with an error on several ranks, but raises no error on one rank. Therefore we use one:

# %% [markdown] lang="zh"
# ## 9. 大小不等的微批
#
# **症状**：梯度按微批累积时，结果随微批的个数略有变化，而且只在某些批量大小下才这样。
#
# torch 的流水线调度对各微批的梯度取平均。微批大小不等时，在多个进程上它会报错停下，在一个进程上却不报错。所以我们就用一个进程：

# %%
print(inspect.getsource(pipelined))

# %% check="scheduled"
pieces = min(microbatches, batch)  # a microbatch has at least one sample
launch(pipelined, 1, w, x, y, pieces, device=device)[0]

# %% [markdown] lang="en"
# It is the mean of means again, and needs no second rank. You make the same mistake if you accumulate the
# gradients of uneven pieces on one GPU and divide each mean loss by the number of pieces. **Remedy**: a
# number of pieces that divides the batch; or sums, divided by the number of samples in the *whole* batch:

# %% [markdown] lang="zh"
# 这又是平均的平均，一个进程就会出现。在一块 GPU 上，对大小不等的几份累积梯度，再把每份的平均损失除以份数，犯的也是同样的错误。**办法**：让微批的个数整除批量大小；或者求和，再除以**整个**批量的样本数：

# %% check="accumulated"
network = Regression(w)
for part, target in zip(x.tensor_split(pieces), y.tensor_split(pieces)):
    loss = ((network(part) - target) ** 2).sum() / batch
    loss.backward()  # adds to network.w.grad
network.w.grad

# %% [markdown] lang="en"
# ## 10. A gradient that is exactly doubled
#
# **Symptom.** None: with Adam, even the loss curve is right. Somebody added a backward pass to log the
# size of the gradient, and left it in. The gradients of the two passes accumulate. (Doubled gradients
# have been found in widely used libraries, which were tested by their loss curves.)

# %% [markdown] lang="zh"
# ## 10. 恰好加倍的梯度
#
# **症状**：没有。用 Adam 时，连损失曲线都是对的。有人为了记录梯度的大小，多做了一次反向传播，后来忘了去掉，两次的梯度就累积起来。（一些广泛使用的库里也出现过加倍的梯度，而它们是靠损失曲线来测试的。）

# %%
print(inspect.getsource(pitfalls.train_with_adam))

# %% [markdown] lang="en"
# The losses with two passes (first row) and with one (second row), over the first steps. By how much do
# they differ?

# %% [markdown] lang="zh"
# 前几步的损失：第一行做了两次反向传播，第二行只做一次。它们相差多少？

# %% tags=["predict"] check="same_losses"
program, task = pitfalls.train_with_adam, (w, shards, min(steps, 5), 0.1)
twice = launch(program, world_size, *task, 2, device=device)[-1]
once = launch(program, world_size, *task, 1, device=device)[-1]
torch.stack([twice[1], once[1]])  # (2, steps)

# %% [markdown] lang="en"
# Adam divides a mean of the gradients by the root of a mean of their squares, so a factor cancels. With
# SGD, the same mistake doubles the learning rate. **Remedy**: compare the *gradients* with those of one
# device, before the first `step()`:

# %% [markdown] lang="zh"
# Adam 把梯度的平均除以梯度平方的平均的平方根，所以公共的倍数被约掉了。用 SGD 时，同样的错误相当于学习率加倍。**办法**：在第一次 `step()` 之前，把**梯度**与一台设备的梯度作比较：

# %% check="doubled"
torch.stack([twice[0], once[0]])  # (2, features)

# %% [markdown] lang="en"
# ## Ten mistakes on a page
#
# | | symptom | cause | remedy | how to notice |
# |---|---|---|---|---|
# | 1 | losses fall, the saved model is poor | no all-reduce: `no_sync()` around the last backward pass | last pass outside | compare **weights** between ranks |
# | 2 | with more ranks the loss explodes, or Adam hides it | sum instead of mean | weights $n_r / n$ | compare the **gradient** with one device |
# | 3 | validation depends on the number of ranks, or is NaN | mean of means | all-reduce of sum and count | a batch that ranks do not share evenly |
# | 4 | more ranks, as many steps per epoch | no sampler | `DistributedSampler` | **gather sample numbers**, count them |
# | 5 | more samples evaluated than there are | padding | count $1/k$ each | gather sample numbers, count them |
# | 6 | equal gradients, different models | different initial weights | `broadcast`, or DDP | compare weights **before** the first step |
# | 7 | model depends on the size of the shards | statistics per shard | `SyncBatchNorm` | shards that differ: sorted samples |
# | 8 | every epoch has the same curve | no `set_epoch` | call it in each epoch | compare the orders of two epochs |
# | 9 | gradient depends on the number of microbatches | mean over uneven pieces | sums, divided by $n$ | a batch that they do not divide |
# | 10 | none | two backward passes | one per step, or `zero_grad` between | compare the gradient **before** `step()` |

# %% [markdown] lang="zh"
# ## 一页看懂十种错误
#
# | | 症状 | 原因 | 办法 | 怎样发现 |
# |---|---|---|---|---|
# | 1 | 损失下降，保存的模型却不好 | 没有全归约：最后一次反向传播也在 `no_sync()` 里 | 把最后一次放在外面 | 比较各进程的**权重** |
# | 2 | 进程一多，损失就爆炸，或被 Adam 掩盖 | 该取平均却求和 | 权重 $n_r / n$ | 与一台设备比较**梯度** |
# | 3 | 验证结果随进程数而变，或是 NaN | 平均的平均 | 对总和与个数做全归约 | 用不能平分的批量试一次 |
# | 4 | 进程增多，每一轮的步数不变 | 没有采样器 | `DistributedSampler` | **收集样本编号**，数一数 |
# | 5 | 评估的样本数比数据还多 | 补齐 | 每次算 $1/k$ | 收集样本编号，数一数 |
# | 6 | 梯度相同，模型不同 | 初始权重各不相同 | `broadcast`，或 DDP | 第一步**之前**比较权重 |
# | 7 | 模型与分片大小有关 | 统计量只来自分片 | `SyncBatchNorm` | 用互不相同的分片：排好序的样本 |
# | 8 | 每一轮的曲线都一样 | 没有 `set_epoch` | 每轮调用一次 | 比较两轮的次序 |
# | 9 | 梯度随微批的个数而变 | 对大小不等的部分取平均 | 求和，再除以 $n$ | 用不能整除的批量试一次 |
# | 10 | 没有 | 做了两次反向传播 | 每步只做一次，或中间清零 | 在 `step()` **之前**比较梯度 |

# %% [markdown] lang="en"
# One habit finds all of them but the eighth: do the same on one device, with a batch that the ranks do not
# share evenly and samples that differ, and compare values instead of curves: sample numbers, weights, and
# gradients before `step()`. The forgotten `set_epoch` also happens on one device, and needs two epochs to
# show. Comparing ranks only with each other is not enough: in 2 to 5 and in 10 they agree, and all are
# wrong.

# %% [markdown] lang="zh"
# 有一个习惯能查出其中九种，只有第 8 种除外：在一台设备上做同样的事，批量要取得各进程不能平分，样本要互不相同，比较的是数值而不是曲线：样本编号、权重，以及 `step()` 之前的梯度。忘记 `set_epoch` 在一台设备上也会发生，而且要比较两轮才看得出来。只在进程之间互相比较是不够的：在第 2 到第 5 种和第 10 种情形里，各进程完全一致，却全都错了。

# %% [markdown] lang="en"
# ## Exercises

# %% [markdown] lang="zh"
# ## 练习

# %% tags=["setup"]
lengths = np.random.default_rng(seed).integers(1, 9, batch)  # words in each sentence
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
# Each sample is a sentence, and `words[r]` has the lengths of the sentences on rank $r$. The loss of
# each rank is a mean over its *words*. By which factor must rank $r$ multiply it, so that DDP computes
# the gradient of the mean over all words?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 长短不一的句子
#
# 每个样本是一个句子，`words[r]` 是进程 $r$ 上各句子的长度。每个进程的损失是对自己的**词**取的平均。进程 $r$ 要给它乘上什么因子，DDP 才会得到对所有词取平均的损失的梯度？

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
# List the samples that a `DistributedSampler` with `shuffle=False` deals to the last rank, in its
# order, without torch. There are `batch` samples. Do not forget the padding.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 自己发牌
#
# 不用 torch，依次列出 `DistributedSampler`（`shuffle=False`）发给最后一个进程的样本编号。一共有 `batch` 个样本，别忘了补齐。

# %% tags=["exercise"]
size = -(-batch // world_size)  # samples per rank, rounded up
last_hand = [... for i in range(size)]
last_hand

# %% tags=["solution"] check="last_hand"
size = -(-batch // world_size)
last_hand = [(world_size - 1 + i * world_size) % batch for i in range(size)]
last_hand

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. The variance of all, from the variances of the parts
#
# Each rank communicates three numbers about its column of readings: `counts[r]`, `means[r]` and
# `variances[r]` (divided by `counts[r] - 1`). Compute mean and variance of all readings from these
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

# %% [markdown] lang="en" tags=["exercise"]
# ### 4. Find the hang
#
# The ranks have different numbers of batches, and each calls `all_reduce` once per batch. The first rank
# that has no batch left stops, and the others wait for it. Repair the program, so that every rank returns
# the number of all batches, and `rounds`, the number of all-reduces in which each rank takes part.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 4. 找出卡住的地方
#
# 各进程的批量个数不同，每个批量调用一次 `all_reduce`。批量先用完的进程不再参加，其他进程就一直等它。修好这个程序，使每个进程都返回批量的总数，以及 `rounds`，即每个进程参加全归约的次数。


# %% tags=["exercise"]
def count_batches(device, counts):
    mine = counts[dist.get_rank()]  # batches of this rank
    rounds = ...
    total = torch.zeros(1, device=device)
    for _ in range(mine):
        one = torch.ones(1, device=device)
        dist.all_reduce(one)
        total += one
    return total.item(), rounds


counts = [2 + (batch + rank) % 3 for rank in range(world_size)]
batches = ...
try:
    batches = launch_cell(count_batches, world_size, counts, device=device, timeout_s=5.0)
except (RuntimeError, TimeoutError) as error:
    print(error)  # which rank waits where?
batches


# %% tags=["solution"] check="batches"
def count_batches(device, counts):
    mine = counts[dist.get_rank()]  # batches of this rank
    rounds = max(counts)
    total = torch.zeros(1, device=device)
    for i in range(rounds):
        one = torch.full((1,), float(i < mine), device=device)
        dist.all_reduce(one)
        total += one
    return total.item(), rounds


counts = [2 + (batch + rank) % 3 for rank in range(world_size)]
batches = launch_cell(count_batches, world_size, counts, device=device, timeout_s=5.0)
batches

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `batch=24`: which of the ten mistakes do no harm now?
# - `world_size=4, batch=3`: which rank has no samples, and how does each section treat it?
# - `world_size=1`: which mistakes are left?
# - `lr=1`, `steps=20`: how far apart are the ranks in sections 1 and 6?
# - In `pitfalls.py`, remove `* dist.get_world_size()` from `weigh_samples`. How wrong is the gradient now,
#   and why?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `batch=24`：十种错误中，现在哪些没有害处？
# - `world_size=4, batch=3`：哪个进程没有样本？每一节各是怎样处理的？
# - `world_size=1`：还剩下哪些错误？
# - `lr=1`、`steps=20`：第 1 节和第 6 节中，各进程相距多远？
# - 在 `pitfalls.py` 里，去掉 `weigh_samples` 中的 `* dist.get_world_size()`：梯度变成了原来的几分之几？为什么？
