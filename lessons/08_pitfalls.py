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
# The programs in this lesson run to completion, without an error or a warning, and keep all GPUs
# busy. But ten of the results are wrong.
#
# After this lesson you can recognize each of the ten mistakes by the values that it leaves behind.
# You also have a habit that finds nine of them: compare with one device.

# %% [markdown] lang="zh"
# # 并行训练的陷阱
#
# 这一课里的程序都能跑完：没有报错，没有警告，所有 GPU 都在忙。但有十次，结果是错的。
#
# 学完这一课，你能从数值上认出这十种错误，并养成一个能查出其中九种的习惯：与一台设备的结果作比较。

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
from torch.utils.data import DistributedSampler

from parallel import launch, pitfalls
from parallel.comparison import compare
from parallel.drawings import draw_loaders
from parallel.microbatches import pipelined
from parallel.pitfalls import Regression
from parallel.toy import make_regression

torch.set_printoptions(threshold=40, edgeitems=2)  # keeps long tensors short

# %% stdout="one_rank"
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# ## The right answer first
#
# Even the smallest network shows these mistakes. Therefore we take a linear regression: the loss is the
# mean squared error of $\mathbf{X}\mathbf{w}$ over $n$ samples, and its gradient is
#
# $$\nabla L = \frac{2}{n} \mathbf{X}^\top (\mathbf{X}\mathbf{w} - \mathbf{y})$$
#
# The samples are in the order in which they were collected, and during that time the targets grew by one.
# So the first samples differ from the last. This is common, and it brings mistakes to light.

# %% [markdown] lang="zh"
# ## 先求正确答案
#
# 再小的网络也会出现这些错误。所以我们用线性回归：损失是 $\mathbf{X}\mathbf{w}$ 在 $n$ 个样本上的均方误差，它的梯度是
#
# $$\nabla L = \frac{2}{n} \mathbf{X}^\top (\mathbf{X}\mathbf{w} - \mathbf{y})$$
#
# 样本按采集的先后排列，其间目标值逐渐增大了 1，所以前面的样本与后面的不同。这种情况很常见，也正好让错误暴露出来。


# %%
w, x, y = make_regression(batch, features, seed, dtype, device)
shards = list(zip(x.tensor_split(world_size), y.tensor_split(world_size)))

# %% [markdown] lang="en"
# This is the gradient on one device. Together, the ranks should compute the same gradient.

# %% [markdown] lang="zh"
# 一台设备算出的梯度如下。各进程合起来，也应当得到它。

# %% check="gradient"
network = Regression(w)
((network(x) - y) ** 2).mean().backward()
right = network.w.grad
right

# %% [markdown] lang="en"
# Most sections follow one pattern: a symptom, a program, your prediction, and the comparison with
# one device. The program takes an argument `mended` and runs twice, first without the remedy and
# then with it. Each result has one row per rank.

# %% [markdown] lang="zh"
# 大多数小节都按同样的步骤讲：症状、程序、你的预测，以及与一台设备的比较。程序有一个参数 `mended`：先不补救运行一次，再补救后运行一次。结果中每个进程占一行。


# %%
def try_both(program, *arguments):
    ranks = launch(pitfalls.run_both, world_size, program, *arguments, device=device)
    return [torch.stack(rows) for rows in zip(*ranks)]  # without the remedy, with it


def descend(w):  # on one device
    for _ in range(steps):
        w = w - lr * 2 / batch * x.T @ (x @ w - y)
    return w


# %% [markdown] lang="en"
# Most programs use these two functions, and `my_shard`, which returns the samples and targets of
# its rank.

# %% [markdown] lang="zh"
# 大多数程序都用到下面两个函数，还用到 `my_shard`，它返回本进程的样本和目标值。

# %%
print(inspect.getsource(pitfalls.my_share))
print(inspect.getsource(pitfalls.local_loss))

# %% [markdown] lang="en"
# ## 1. The ranks never communicate
#
# **Symptom.** The loss falls on every rank, but the saved model is no better than a model that was
# trained on a part of the data.
#
# `no_sync()` is meant for gradients that accumulate: the ranks communicate only in the last backward pass.
# Here the last pass is inside `no_sync()` too. What do the weights of the ranks look like after training?

# %% [markdown] lang="zh"
# ## 1. 各练各的
#
# **症状**：每个进程上的损失都在下降，保存下来的模型却好像只见过一部分数据。
#
# `no_sync()` 是为梯度累积准备的：到最后一次反向传播时，各进程才通信。这里把最后一次也写在了 `no_sync()` 里。训练之后，各进程的权重会怎样？

# %%
print(inspect.getsource(pitfalls.train))

# %% tags=["predict"] check="never_reduced"
wrong, mended = try_both(pitfalls.train, w, shards, steps, lr)
compare("1 wrong", wrong, descend(w))
compare("1 mended", mended, descend(w))
wrong, mended  # (world_size, features) each

# %% [markdown] lang="en"
# Without the remedy, each rank has trained its own model, and rank 0 saves one of the $W$ models.
# (Calling `replica.module(x)` instead of `replica(x)` has the same effect, because that pass
# bypasses DDP.) **Remedy**: keep the last forward and backward passes outside `no_sync()`, and let
# them go through DDP.

# %% [markdown] lang="zh"
# 不补救时，每个进程各自训练了一个模型，进程 0 保存的只是 $W$ 个中的一个。（把 `replica(x)` 写成 `replica.module(x)` 也是同样的结果，因为这样就绕过了 DDP。）**办法**：最后一次前向传播和反向传播放在 `no_sync()` 之外，并且经过 DDP。

# %% [markdown] lang="en"
# ## 2. Sum instead of mean
#
# **Symptom.** Training works on one GPU and is unstable on two. On eight GPUs the loss explodes, until
# somebody divides the learning rate by eight. (Adam divides by the size of the gradients, so it hides the
# mistake.)
#
# An all-reduce computes a sum by default. How large is this gradient, compared with the right one?

# %% [markdown] lang="zh"
# ## 2. 该取平均，却求了和
#
# **症状**：一块 GPU 上训练正常，两块有些不稳定，八块时损失爆炸，直到有人把学习率除以八。（Adam 会除以梯度的大小，把这个错误掩盖起来。）
#
# 全归约默认求和。与正确的梯度相比，这个梯度有多大？

# %%
print(inspect.getsource(pitfalls.reduce_gradients))

# %% tags=["predict"] check="summed"
wrong, mended = try_both(pitfalls.reduce_gradients, w, shards)
compare("2 wrong", wrong, right)
compare("2 mended", mended, right)
wrong, mended  # (world_size, features) each

# %% [markdown] lang="en"
# Without the remedy, it is about $W$ times as large, and equal on all ranks, so comparing the ranks with each other finds
# nothing. **Remedy**: each rank weights its loss by its share $n_r / n$ of the samples. The shares add up to
# 1, so the sum becomes a mean. (DDP divides by $W$ itself; there the weight is $n_r W / n$.)

# %% [markdown] lang="zh"
# 不补救时，它大约是正确梯度的 $W$ 倍，而且各进程都一样，所以只在进程之间互相比较是查不出来的。**办法**：每个进程的损失乘以自己的样本所占的份额 $n_r / n$。份额之和为 1，求和就成了平均。（DDP 自己会除以 $W$，所以那里的权重是 $n_r W / n$。）

# %% [markdown] lang="en"
# ## 3. The mean of means
#
# **Symptom.** The validation loss changes with the number of GPUs, although the model does not. On some
# data sets it is NaN.
#
# In lesson 05, a plain mean over uneven shards distorted the gradient. The same can happen wherever ranks
# report a mean, for example a loss or an accuracy. Is this loss correct?

# %% [markdown] lang="zh"
# ## 3. 平均的平均
#
# **症状**：模型没变，验证集上的损失却随 GPU 的数量而变；在某些数据集上还会变成 NaN。
#
# 在第 05 课里，分片大小不等时，普通平均使梯度出错。只要各进程汇报的是平均值，不论是损失还是准确率，都可能出现同样的错误。下面的损失正确吗？

# %%
print(inspect.getsource(pitfalls.evaluate))

# %% tags=["predict"] check="mean_of_means"
wrong, mended = try_both(pitfalls.evaluate, w, shards)
one_device = ((x @ w - y) ** 2).mean()
compare("3 wrong", wrong, one_device)
compare("3 mended", mended, one_device)
wrong, mended  # (world_size,) each

# %% [markdown] lang="en"
# A rank with one sample fewer counts as much as the others, and a rank without samples reports 0/0.
# **Remedy**: never communicate a mean. Communicate the sum and the count, and divide at the end.

# %% [markdown] lang="zh"
# 少一个样本的进程与其他进程所占的比重一样；一个样本也没有的进程，汇报的是 0/0。**办法**：不要传平均值，要传总和与个数，最后再相除。

# %% [markdown] lang="en"
# ## 4. All ranks load the same samples
#
# **Symptom.** With four GPUs, an **epoch** (one pass over all samples) takes as many steps as with one. If
# the ranks do not shuffle, their losses are equal to the last digit.
#
# Without a sampler, the loader is the one that everybody writes for one device: it knows neither
# the rank nor the world size. Which samples does each rank load, and what is their gradient?

# %% [markdown] lang="zh"
# ## 4. 各进程读的是同样的样本
#
# **症状**：用了四块 GPU，一个**轮次**（epoch，即把所有样本过一遍）的步数却与一块时一样多。如果不打乱次序，各进程的损失直到最后一位都相同。
#
# 没有采样器时，数据加载器的写法与只用一台设备时一样，它不知道进程编号和进程总数。每个进程读哪些样本？它们的梯度是什么？

# %%
print(inspect.getsource(pitfalls.load))

# %% tags=["predict"] check="same_samples"
same, wrong, dealt, padded = try_both(pitfalls.load, w, x, y)
same, wrong  # (world_size, n_local), (world_size, features)

# %% [markdown] lang="en"
# The mean of $W$ equal gradients is the gradient of one shard: the ranks agree with each other, but not with
# one device. **Remedy**: a `DistributedSampler` deals the samples out like cards. It asks the process group
# for rank and world size.

# %% [markdown] lang="zh"
# $W$ 个相同梯度的平均，就是一个分片的梯度：各进程彼此一致，却与一台设备不一致。**办法**：用 `DistributedSampler`，它像发牌一样把样本轮流发给各进程。进程编号和进程总数，它会向进程组查询。

# %% check="dealt"
compare("4 wrong", wrong, right)
compare("4 mended", padded, right)
dealt  # (world_size, n_local)

# %% [markdown] lang="en"
# ## 5. Samples that count twice
#
# **Symptom.** An evaluation counts more samples than the data set has.
#
# If $W$ does not divide $n$, the fourth remedy does not give the gradient of one device. How often was each
# sample dealt out?

# %% [markdown] lang="zh"
# ## 5. 算了两遍的样本
#
# **症状**：评估时数出来的样本，比数据集里的还多。
#
# $n$ 不能被 $W$ 整除时，第 4 种错误即使补救了，得到的也不是一台设备的梯度。每个样本各发出了几次？

# %% tags=["predict"] check="times_dealt"
times = torch.bincount(dealt.flatten())  # (batch,)
times

# %% [markdown] lang="en"
# The sampler gives all ranks equally many samples. If $W$ does not divide $n$, it starts again from
# the beginning, which is called **padding**. (`drop_last=True` has the opposite fault: it leaves
# samples out.) In a long training run, this hardly matters. In an evaluation, and in a comparison
# with one device, it is an error. **Remedy**: a sample that was dealt out $k$ times gets the weight
# $1/k$.

# %% [markdown] lang="zh"
# 采样器给每个进程同样多的样本；$n$ 不能被 $W$ 整除时，它就从头再发，这叫作**补齐**（padding）。（`drop_last=True` 的毛病正相反：它会漏掉样本。）在漫长的训练里，这无伤大雅；在评估时，以及与一台设备作比较时，这就是错误。**办法**：发出 $k$ 次的样本，权重为 $1/k$。

# %%
print(inspect.getsource(pitfalls.weight_samples))

# %% check="weighted_gradient"
ranks = launch(pitfalls.weight_samples, world_size, w, x, y, times, device=device)
compare("5 wrong", padded, right)
compare("5 mended", torch.stack(ranks), right)
padded, torch.stack(ranks)  # (world_size, features) each

# %% tags=["figure"]
options = dict(num_replicas=world_size, shuffle=False, drop_last=True)
hands = [DistributedSampler(range(batch), rank=r, **options) for r in range(world_size)]
draw_loaders([same.tolist(), dealt.tolist(), list(map(list, hands))], batch)
plt.show()

# %% [markdown] lang="en"
# **Figure.** Which rank loads which sample: (a) without a sampler, (b) with a sampler, (c) with
# `drop_last=True`. Blue samples are on one rank, red samples on several. A column that is grey from top to
# bottom is a sample that no rank loads.

# %% [markdown] lang="zh"
# **图**。哪个进程读哪个样本：(a) 没有采样器，(b) 有采样器，(c) `drop_last=True`。蓝色的样本只在一个进程里，红色的同时在几个进程里。从上到下全灰的一列，是哪个进程都没有读的样本。

# %% [markdown] lang="en"
# ## 6. Different initial weights
#
# **Symptom.** In every step the gradients are equal on all ranks, to the last bit. The models are not.
#
# This time the all-reduce is right, but each rank has drawn its initial weights with its own seed. Does
# training bring the ranks together? (First the weights before training; then the weights after it, without the
# remedy and with it.)

# %% [markdown] lang="zh"
# ## 6. 初始权重不同
#
# **症状**：每一步的梯度在各进程上都完全相同，模型却不相同。
#
# 这一次全归约没有错，但每个进程用自己的种子产生了初始权重。训练会让各进程渐渐一致吗？（先是训练前的权重，再是不补救和补救时训练后的权重。）

# %%
print(inspect.getsource(pitfalls.descend))

# %% tags=["predict"] check="initial_weights"
rngs = [np.random.default_rng([seed, r]) for r in range(world_size)]
drawn = np.stack([rng.uniform(0.5, 1, features) for rng in rngs])
drawn = torch.tensor(drawn).to(x)
wrong, mended = try_both(pitfalls.descend, drawn, shards, steps, lr)
compare("6 wrong", wrong, descend(drawn[0]))
compare("6 mended", mended, descend(drawn[0]))
drawn.cpu(), wrong, mended  # (world_size, features) each

# %% [markdown] lang="en"
# By itself it does not. Identical updates preserve the gap: after training, the rows differ by as much as before. And the
# gradient that the ranks share belongs to none of their models. **Remedy**: start from the weights of rank 0
# on every rank. By hand this takes a `broadcast`; DDP does it when it wraps a network.

# %% [markdown] lang="zh"
# 不补救就不会。更新完全相同，差距也就保持不变：训练之后各行之差，与训练之前一样大。而且，各进程共用的梯度并不是其中任何一个模型的梯度。**办法**：所有进程都从进程 0 的权重开始。亲手实现时，要做一次**广播通信**（`broadcast`）；DDP 在包装网络时就会做。

# %% [markdown] lang="en"
# ## 7. Statistics of a shard
#
# **Symptom.** Gradients and weights are equal on all ranks, but the model depends on the number of GPUs. The
# smaller the shards, the worse the model.
#
# **Batch normalization** subtracts from each column its mean over the batch, and divides the column
# by the square root of its variance. On each rank, the batch is only a shard. The readings below
# grow by about 3 from one to the next, and each rank gets five or six of them. Are the variances on
# the ranks larger or smaller than the variance of all readings?

# %% [markdown] lang="zh"
# ## 7. 局部的统计量
#
# **症状**：各进程的梯度和权重都相同，模型却与 GPU 的数量有关；分片越小，模型越差。
#
# **批量归一化**从每一列减去这一列在批量上的均值，再除以这一列方差的平方根。可在每个进程上，批量只是一个分片。下面的读数，每一个大约比前一个大 3，每个进程分到五六个。各进程的方差比全部读数的方差大，还是小？

# %%
print(inspect.getsource(pitfalls.normalize))
print(inspect.getsource(pitfalls.reduce_statistics))

# %% tags=["predict"] check="batch_statistics"
rng = np.random.default_rng(seed)
count = 5 * world_size + 1  # uneven for two ranks and more
climb = 3 * np.arange(count)[:, None] + rng.integers(0, 3, (count, features))
climb = torch.tensor(climb).to(x)
readings = climb.tensor_split(world_size)  # (n_local, features) each
means, wrong, mean, mended = try_both(pitfalls.normalize, readings)
compare("7 wrong", wrong, climb.var(dim=0))
compare("7 mended", mended, climb.var(dim=0))
{"mean": means, "var": wrong}, {"mean": mean, "var": mended}

# %% [markdown] lang="en"
# With more than one rank they are smaller. DDP does not repair this: before each forward pass it copies the
# statistics of rank 0, and thus of one shard, to all ranks. **Remedy**: `convert_sync_batchnorm` replaces each
# such layer of a network with **SyncBatchNorm**, which gathers the mean, variance and count of
# every rank and combines them, as you do in exercise 1. By hand, two all-reduces are enough: one of
# sums and counts, for the mean of all readings, and one of the squared distances from *this* mean.
# (SyncBatchNorm works on GPUs only. On the CPU, `reduce_statistics` runs these two all-reduces
# instead, so this check does *not* verify SyncBatchNorm.)

# %% [markdown] lang="zh"
# 只要多于一个进程，方差就更小。DDP 也补救不了：每次前向传播之前，它把进程 0 的统计量（仍只是一个分片的）复制给所有进程。**办法**：用 `convert_sync_batchnorm` 把网络中每个这样的层换成**同步批量归一化**（SyncBatchNorm）。它收集每个进程的均值、方差和个数，再合并起来，做法与练习 1 相同。自己实现时，做两次全归约就够了：第一次对总和与个数，由此得到全部读数的均值；第二次对各读数与**这个**均值之差的平方和，由此得到方差。（SyncBatchNorm 只能在 GPU 上运行。在 CPU 上，改由 `reduce_statistics` 做这两次全归约，所以这个检查项**没有**验证 SyncBatchNorm。）

# %% [markdown] lang="en"
# ## 8. The same order in every epoch
#
# **Symptom.** The curve of the training loss repeats itself in every epoch.
#
# A sampler that shuffles draws the order from its seed and the number of the epoch, which the program has to set
# with `set_epoch`. Here are 840 samples, which 1 to 8 ranks share evenly. (The orders come from torch's own
# generator and cannot be derived, so they are given.) In `steps` epochs, how many orders and how many different
# samples does rank 0 get, first without `set_epoch` and then with it?

# %% [markdown] lang="zh"
# ## 8. 每一轮的次序都一样
#
# **症状**：训练损失的曲线每一轮都重复同样的形状。
#
# 会打乱次序的采样器，由种子和轮次的编号决定次序，而这个编号要由程序用 `set_epoch` 设置。下面有 840 个样本，1 到 8 个进程都能平分。（这些次序来自 torch 自己的随机数生成器，无法推导，所以是给定的。）在 `steps` 轮之中，进程 0 会得到几种次序、多少个不同的样本？先不调用 `set_epoch`，再调用它。

# %% given="shuffled"
sampler = DistributedSampler(range(840), world_size, rank=0, seed=seed)
forgotten = [list(sampler) for epoch in range(steps)]
orders = []
for epoch in range(steps):
    sampler.set_epoch(epoch)
    orders.append(list(sampler))
torch.tensor(orders)  # (steps, 840 / W)


# %% tags=["predict"] check="orders"
def differences(orders):
    return len(set(map(tuple, orders))), len(set().union(*orders))  # orders, samples


differences(forgotten), differences(orders)

# %% [markdown] lang="en"
# Without `set_epoch`, rank 0 gets one order, and never the samples of the other ranks. **Remedy**: call it at the
# beginning of each epoch.

# %% [markdown] lang="zh"
# 不调用 `set_epoch`，进程 0 就只有一种次序，永远得不到其他进程的样本。**办法**：每一轮开始时都调用它。

# %% [markdown] lang="en"
# ## 9. Microbatches of two sizes
#
# **Symptom.** When gradients accumulate over microbatches, results change a little with the number of
# microbatches, but only for some batch sizes.
#
# A pipeline (lesson 07) divides each batch into **microbatches**. The schedule of torch takes the
# mean of their gradients. If the microbatches are not equally large, a pipeline of several ranks
# stops with an error, but a pipeline of one rank does not. Therefore we use a single rank. Is the
# result the gradient of one device?

# %% [markdown] lang="zh"
# ## 9. 大小不等的微批
#
# **症状**：梯度按**微批**（microbatch，即把批量再切成的小份，见第 07 课）累积时，结果随微批的个数略有变化，而且只在某些批量大小下才这样。
#
# torch 的流水线调度对各微批的梯度取平均。微批大小不等时，在多个进程上它会报错停下，在一个进程上却不报错，所以我们就用一个进程。得到的是一台设备的梯度吗？

# %%
print(inspect.getsource(pipelined))

# %% tags=["predict"] check="scheduled"
pieces = min(microbatches, batch)  # a microbatch has at least one sample
wrong = launch(pipelined, 1, w, x, y, pieces, device=device)[0]
wrong

# %% [markdown] lang="en"
# It is the mean of means again, on a single rank. You make the same mistake if you accumulate the gradients of
# uneven pieces on one GPU and divide each mean loss by the number of pieces. **Remedy**: choose a number of
# pieces that divides the batch; or use sums, divided by the number of samples in the *whole* batch:

# %% [markdown] lang="zh"
# 这又是平均的平均，只用一个进程也会出现。在一块 GPU 上累积梯度时，如果各份大小不等，却把每份的平均损失除以份数，犯的也是同样的错误。**办法**：让微批的个数整除批量大小；或者求和，再除以**整个**批量的样本数：

# %% check="accumulated"
network = Regression(w)
for part, target in zip(x.tensor_split(pieces), y.tensor_split(pieces)):
    loss = ((network(part) - target) ** 2).sum() / batch
    loss.backward()  # adds to network.w.grad
compare("9 wrong", wrong, right)
compare("9 mended", network.w.grad, right)
network.w.grad

# %% [markdown] lang="en"
# ## 10. A gradient that is exactly doubled
#
# **Symptom.** None: with Adam, even the loss curve is right. Somebody added a backward pass to log the size of
# the gradient, and left it in. The gradients of the two passes accumulate. (Doubled gradients have been found in
# widely used libraries, which were tested by their loss curves.) By how much do the losses with two passes and
# with one pass differ?

# %% [markdown] lang="zh"
# ## 10. 恰好加倍的梯度
#
# **症状**：没有。用 Adam 时，连损失曲线都是对的。有人为了记录梯度的大小，多做了一次反向传播，后来忘了去掉，两次的梯度就累积起来。（一些广泛使用的库里也出现过加倍的梯度，而它们是靠损失曲线来测试的。）做两次反向传播与只做一次，损失相差多少？

# %%
print(inspect.getsource(pitfalls.train_with_adam))

# %% tags=["predict"] check="same_losses"
rest = shards, min(steps, 5), 0.1
losses, wrong, losses_mended, mended = try_both(pitfalls.train_with_adam, w, *rest)
torch.stack([losses[0], losses_mended[0]])  # (2, steps)

# %% [markdown] lang="en"
# Adam divides a mean of the gradients by the root of a mean of their squares, so a common factor cancels. With
# SGD, the same mistake doubles the learning rate. **Remedy**: compare the *gradients* with those of one device,
# before the first `step()`:

# %% [markdown] lang="zh"
# Adam 的更新量是一个分式：分子是梯度的平均，分母是梯度平方的平均再开平方，所以公共的倍数被约掉了。用 SGD 时，同样的错误相当于学习率加倍。**办法**：在第一次 `step()` 之前，把**梯度**与一台设备的梯度作比较：

# %% check="doubled"
compare("10 wrong", wrong, right)
compare("10 mended", mended, right)
torch.stack([wrong[0], mended[0]])  # (2, features)

# %% [markdown] lang="en"
# ## Ten mistakes on a page
#
# One habit finds all of them but the eighth: do the same on one device and compare, with a batch
# that the ranks do not share evenly and with samples that differ. Compare values instead of curves:
# sample indices, weights, and gradients before `step()`. (The forgotten `set_epoch` also happens on
# one device, and takes two epochs to show.) Comparing ranks only with each other is not enough: in
# 2 to 5 and in 10 they agree, and all are wrong.

# %% [markdown] lang="zh"
# ## 一页看懂十种错误
#
# 有一个习惯能查出其中九种，只有第 8 种除外：在一台设备上做同样的计算并比较，批量大小要取各进程不能平分的数，样本要互不相同。比较的是数值而不是曲线：样本编号、权重，以及 `step()` 之前的梯度。（忘记 `set_epoch` 在一台设备上也会发生，而且要比较两轮才看得出来。）只在进程之间互相比较是不够的：在第 2 到第 5 种和第 10 种情形里，各进程完全一致，却全都错了。

# %% [markdown] lang="en"
# |  | symptom | remedy | how to notice |
# |---|---|---|---|
# | 1 | losses fall, the saved model is poor | last pass outside `no_sync()` | compare **weights** between ranks |
# | 2 | loss explodes, unless Adam hides it | weights $n_r / n$ | compare the **gradient** |
# | 3 | validation depends on $W$, or is NaN | all-reduce of sum and count | validate uneven shards |
# | 4 | more ranks, as many steps per epoch | `DistributedSampler` | gather the **sample indices** |
# | 5 | more samples evaluated than exist | weight $1/k$ | count the sample indices |
# | 6 | equal gradients, different models | `broadcast`, or DDP | compare **initial** weights |
# | 7 | model depends on the shards' size | `SyncBatchNorm` | shards that differ: sorted samples |
# | 8 | every epoch has the same curve | `set_epoch` each epoch | compare the orders of two epochs |
# | 9 | microbatches change the gradient | sums, divided by $n$ | microbatches of two sizes |
# | 10 | none | one pass per step | the gradient **before** `step()` |

# %% [markdown] lang="zh"
# |  | 症状 | 办法 | 怎样发现 |
# |---|---|---|---|
# | 1 | 损失下降，保存的模型却不好 | 把最后一次传播放在 `no_sync()` 外面 | 比较各进程的**权重** |
# | 2 | 进程一多，损失就爆炸，或被 Adam 掩盖 | 权重 $n_r / n$ | 与一台设备比较**梯度** |
# | 3 | 验证结果随进程数而变，或是 NaN | 对总和与个数做全归约 | 用不能平分的批量试一次 |
# | 4 | 进程增多，每一轮的步数不变 | `DistributedSampler` | **收集样本编号**，数一数 |
# | 5 | 评估的样本比数据集里的还多 | 权重 $1/k$ | 收集样本编号，数一数 |
# | 6 | 梯度相同，模型不同 | `broadcast`，或 DDP | 第一步**之前**比较权重 |
# | 7 | 模型与分片大小有关 | `SyncBatchNorm` | 用互不相同的分片：排好序的样本 |
# | 8 | 每一轮的曲线都一样 | 每轮调用 `set_epoch` | 比较两轮的次序 |
# | 9 | 梯度随微批的个数而变 | 求和，再除以 $n$ | 用不能平分成微批的批量试一次 |
# | 10 | 没有 | 每步只做一次反向传播 | 在 `step()` **之前**比较梯度 |

# %% [markdown] lang="en"
# ## Exercises

# %% [markdown] lang="zh"
# ## 练习

# %% tags=["setup"]
readings = 3 * np.arange(5 * world_size + 1)
readings += np.random.default_rng(seed).integers(0, 3, len(readings))
parts = np.array_split(readings, world_size)  # one part per rank
counts = [len(part) for part in parts]
means = [part.mean().item() for part in parts]
variances = [part.var(ddof=1).item() for part in parts]
batches_of = [2 + (batch + rank) % 3 for rank in range(world_size)]

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. The variance of all, from the variances of the parts
#
# Rank $r$ reports three numbers about its readings: `counts[r]`, `means[r]` and `variances[r]` (divided by
# `counts[r] - 1`). Compute mean and variance of all readings from these numbers alone. What must be added to the
# variances within the ranks?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 由各部分的方差求总方差
#
# 进程 $r$ 汇报自己读数的三个统计量：`counts[r]`、`means[r]` 和 `variances[r]`（除以 `counts[r] - 1`）。只用这些数，求全部读数的均值和方差。在各进程内部的方差之外，还要加上什么？

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
# ### 2. Find the hang
#
# The ranks have different numbers of batches, and each calls `all_reduce` once per batch. The first
# rank that has no batch left stops, and the others wait for it. Repair the program, so that every
# rank returns the total number of batches, and `rounds`, the number of all-reduces in which each
# rank takes part.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 找出卡住的地方
#
# 各进程的批量个数不同，每处理一个批量就调用一次 `all_reduce`。批量先用完的进程不再参加，其他进程就一直等它。修好这个程序，使每个进程都返回批量的总数，以及 `rounds`，即每个进程参加全归约的次数。


# %% tags=["exercise"]
def count_batches(device, counts):
    own = counts[dist.get_rank()]  # batches of this rank
    rounds = ...
    total = torch.zeros(1, device=device)
    for _ in range(own):
        one = torch.ones(1, device=device)
        dist.all_reduce(one)
        total += one
    return total.item(), rounds


batches, options = ..., dict(device=device, timeout_s=5.0)
try:
    batches = launch_cell(count_batches, world_size, batches_of, **options)
except (RuntimeError, TimeoutError) as error:
    print(error)  # which rank waits where?
batches


# %% tags=["solution"] check="batches"
def count_batches(device, counts):
    own = counts[dist.get_rank()]  # batches of this rank
    rounds = max(counts)
    total = torch.zeros(1, device=device)
    for i in range(rounds):
        one = torch.full((1,), float(i < own), device=device)
        dist.all_reduce(one)
        total += one
    return total.item(), rounds


batches = launch_cell(count_batches, world_size, batches_of, device=device)
batches

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `batch=24`: which of the ten mistakes do no harm now?
# - `world_size=4, batch=3`: which rank has no samples, and how does each section treat it?
# - `world_size=1`: which mistakes are left?
# - In `pitfalls.py`, remove `* dist.get_world_size()` from `weight_samples`. How wrong is the gradient, and why?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `batch=24`：十种错误中，现在哪些没有害处？
# - `world_size=4, batch=3`：哪个进程没有样本？每一节各是怎样处理的？
# - `world_size=1`：还剩下哪些错误？
# - 在 `pitfalls.py` 里，去掉 `weight_samples` 中的 `* dist.get_world_size()`：梯度错了多少？为什么？
