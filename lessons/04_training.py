# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     prerequisites: [autograd]
#     gpus: {min: 0, max: 1}
#     parameters:
#       samples: {min: 16, max: 64}
#       features: {min: 1, max: 4}
#       batch: {min: 2, max: 64}
#       epochs: {min: 1, max: 20}
#       lr: {min: 0.001, max: 0.1}
#       seed: {min: 0, max: 4294967295}
#       dtype: {choices: [float32, float64]}
# ---

# %% [markdown] lang="en"
# # From a gradient to training
#
# A gradient says in which direction the loss grows. Training takes many small steps in the
# opposite direction. In this lesson you first write the training loop yourself, and then replace
# its parts one by one with those of PyTorch. The results stay the same, but the code gets shorter.
#
# After this lesson you can read a training script, save the state of a training run, and continue
# the run later. At the end you will write an autograd of your own in about 25 lines.

# %% [markdown] lang="zh"
# # 从梯度到训练
#
# 梯度指出损失增长的方向，训练就是朝相反的方向走许多小步。这一课先亲手写出训练循环，再把各个部分逐一换成 PyTorch 提供的工具。结果不变，代码却更短。
#
# 学完这一课，你能读懂训练脚本，能保存训练的状态，还能在以后接着训练。最后，你还会用大约 25 行代码写出自己的自动求导。

# %% tags=["parameters"]
samples: int = 20  # number of samples
features: int = 2  # number of features of each sample
batch: int = 8  # samples per step
epochs: int = 8  # passes over all samples
lr: float = 0.1  # learning rate
seed: int = 0  # seed of the random data
dtype: str = "float32"  # dtype of the tensors
device: str = "cpu"  # where the tensors live

# %% tags=["setup"]
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

kind = getattr(torch, dtype)

# %% [markdown] lang="en"
# ## The task
#
# We choose the true answer ourselves, so that we can judge the result. Sample $i$ has a few
# **features** $x_{i1}, x_{i2}, \dots$ and a **target** $y_i$, the number to predict. The target is
# a weighted sum of the features, plus a constant, the **bias**, plus a little noise:
#
# $$y_i = 2 x_{i1} - x_{i2} + 3 x_{i3} - 2 x_{i4} + 0.5 + \text{noise}$$
#
# Only the first `features` of the four weighted terms are used. Training has to find the weights
# and the bias from the samples alone. These are the first three samples:

# %% [markdown] lang="zh"
# ## 任务
#
# 为了能判断结果的好坏，真实的答案由我们自己定。第 $i$ 个样本有几个**特征** $x_{i1}, x_{i2}, \dots$ 和一个**目标值** $y_i$，目标值就是要预测的数。它是各特征的加权和，加上一个常数（**偏置**）和少许噪声：
#
# $$y_i = 2 x_{i1} - x_{i2} + 3 x_{i3} - 2 x_{i4} + 0.5 + \text{噪声}$$
#
# 上式只取前 `features` 个特征的项。训练要做的，是仅凭样本找出权重和偏置。先看前三个样本：

# %% tags=["setup"]
rng = np.random.default_rng(seed)
inputs = rng.uniform(-1, 1, (samples, features))
noise = 0.1 * rng.standard_normal(samples)
targets = inputs @ [2, -1, 3, -2][:features] + 0.5 + noise
x = torch.from_numpy(inputs).to(device, kind)  # (samples, features)
y = torch.from_numpy(targets).to(device, kind)  # (samples,)

# %% check="first_samples"
x[:3], y[:3]

# %% [markdown] lang="en"
# ## By hand: one step
#
# The model is $\hat y_i = \mathbf{w} \cdot \mathbf{x}_i + b$. Its **loss** is the mean squared
# error over the samples,
#
# $$L = \frac{1}{n} \sum_i (\hat y_i - y_i)^2 .$$
#
# We start from $\mathbf{w} = 0$ and $b = 0$. What is the loss there, in terms of $y$?

# %% [markdown] lang="zh"
# ## 手写：更新一步
#
# 模型是 $\hat y_i = \mathbf{w} \cdot \mathbf{x}_i + b$，**损失**取各样本的均方误差
#
# $$L = \frac{1}{n} \sum_i (\hat y_i - y_i)^2 。$$
#
# 从 $\mathbf{w} = 0$、$b = 0$ 出发。此时的损失用 $y$ 怎样表示？

# %% check="first_loss"
w = torch.zeros(features, dtype=kind, device=device, requires_grad=True)
b = torch.zeros(1, dtype=kind, device=device, requires_grad=True)
loss = ((x @ w + b - y) ** 2).mean()
loss

# %% [markdown] lang="en"
# It is the mean of $y_i^2$, because every prediction is 0. Next we need the gradient. On paper, the
# chain rule gives
#
# $$\frac{\partial L}{\partial w_j} = \frac{2}{n} \sum_i (\hat y_i - y_i)\,x_{ij}, \qquad
# \frac{\partial L}{\partial b} = \frac{2}{n} \sum_i (\hat y_i - y_i) .$$

# %% [markdown] lang="zh"
# 就是 $y_i^2$ 的均值，因为所有预测值都是 0。再求梯度。在纸上用链式法则可得
#
# $$\frac{\partial L}{\partial w_j} = \frac{2}{n} \sum_i (\hat y_i - y_i)\,x_{ij}, \qquad
# \frac{\partial L}{\partial b} = \frac{2}{n} \sum_i (\hat y_i - y_i) 。$$

# %% check="first_gradient"
loss.backward()
torch.cat([w.grad, b.grad])

# %% [markdown] lang="en"
# A step of **gradient descent** subtracts the gradient times the **learning rate** `lr`. The most
# obvious line for this raises an error. Predict why: what does autograd do with operations on `w`?

# %% [markdown] lang="zh"
# 一步**梯度下降**，就是从参数中减去梯度与**学习率** `lr` 的乘积。最直接的写法却会报错。先猜一猜原因：对 `w` 做的运算，自动求导会怎样处理？

# %% check="update_is_recorded" raises="RuntimeError"
w -= lr * w.grad

# %% [markdown] lang="en"
# Autograd records every operation on `w`, and it would record the update as well. Then `w` would be
# the result of a recorded operation, so it would no longer be a leaf, and `backward` would no
# longer store its gradient. Therefore PyTorch raises an error. But the update is not part of the
# model. Under `torch.no_grad()` nothing is recorded, and the leaf may be changed in place.

# %% [markdown] lang="zh"
# 自动求导会记录对 `w` 的每一步运算，更新也不例外。这样 `w` 就成了计算图中某次运算的结果，不再是叶子张量，`backward` 也不再为它保存梯度，所以 PyTorch 报错。但更新并不是模型的一部分。在 `torch.no_grad()` 的作用范围内不记录运算，因此可以原地修改叶子张量。


# %% check="one_step"
def joined(w, b):
    return torch.cat([w, b]).detach()  # the values alone


with torch.no_grad():
    w -= lr * w.grad
    b -= lr * b.grad
joined(w, b)

# %% [markdown] lang="en"
# ## By hand: the loop
#
# With millions of samples, a step that uses all of them is too slow. Therefore each step uses only a
# **batch**, and a pass over all batches is called an **epoch**. `split` divides the samples into batches
# of `batch` samples. How many steps does an epoch have, and how large is the last batch?

# %% [markdown] lang="zh"
# ## 手写：训练循环
#
# 样本有几百万个时，每一步都用全部样本就太慢了。因此每一步只用一个**批量**；把所有批量都用一遍，称为一个**轮次**（epoch）。`split` 按每批 `batch` 个划分样本。一个轮次有几步？最后一批有多大？

# %% check="batch_sizes"
[len(targets) for targets in y.split(batch)]

# %% [markdown] lang="en"
# The loop has four parts: it computes the loss and the gradient, updates the parameters, and clears
# the gradient, because `backward` adds to it. We also keep the loss of each step.

# %% [markdown] lang="zh"
# 循环有四个部分：求损失、求梯度、更新参数，以及梯度清零（因为 `backward` 会累加梯度）。我们还记录每一步的损失。


# %%
def train_by_hand(w, b):
    losses = []
    for _ in range(epochs):
        for inputs, targets in zip(x.split(batch), y.split(batch)):
            loss = ((inputs @ w + b - targets) ** 2).mean()
            loss.backward()
            with torch.no_grad():
                w -= lr * w.grad
                b -= lr * b.grad
            w.grad = b.grad = None
            losses.append(loss.detach())
    return torch.stack(losses)


# %% [markdown] lang="en"
# Does the loss fall in every step? Note that each step uses different samples from the step before.

# %% [markdown] lang="zh"
# 每一步损失都会下降吗？注意，每一步用的样本都与前一步不同。

# %% check="losses_by_hand"
w = torch.zeros(features, dtype=kind, device=device, requires_grad=True)
b = torch.zeros(1, dtype=kind, device=device, requires_grad=True)
losses = train_by_hand(w, b)
losses

# %% tags=["figure"]
figure, panel = plt.subplots(figsize=(7, 2.4), layout="constrained")
steps = np.arange(1, len(losses) + 1)
per_epoch = len(losses) // epochs
panel.plot(steps, losses.cpu(), ".-", color="#a9c6de")
means = losses.reshape(epochs, per_epoch).mean(dim=1).cpu()
panel.plot(steps[per_epoch - 1 :: per_epoch], means, "o-", color="#1d3557")
panel.axhline(0.01, color="#c1121f", linewidth=1, linestyle="--")
panel.text(1, 0.011, "$0.1^2$", color="#c1121f", fontsize=8, va="bottom")
panel.set(yscale="log", xlabel="step", ylabel="loss")
panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** The loss of each step (small dots), and its mean over each epoch (large dots). On
# average, this model cannot get far below the variance of the noise, $0.1^2$ (dashed). The loss of
# a single step can go up, because one batch can be harder than another.

# %% [markdown] lang="zh"
# **图**。每一步的损失（小点），以及它在每个轮次上的平均值（大点）。噪声的方差是 $0.1^2$（虚线），这个模型的平均损失不会比它低很多。个别步的损失会上升，因为各批样本的难度不同。

# %% [markdown] lang="en"
# The loss falls. What about the weights? The true weights are $2, -1, 3, -2$ (as many as there are
# features), followed by the bias $0.5$.

# %% [markdown] lang="zh"
# 损失在下降，那么权重呢？真实的权重是 $2, -1, 3, -2$（有几个特征就取几个），最后是偏置 $0.5$。

# %% check="weights_by_hand"
joined(w, b)

# %% [markdown] lang="en"
# The weights and the bias approach the true values, and with more epochs they come closer.
#
# ## The same loop with PyTorch's parts
#
# **The model.** An `nn.Module` holds the parameters and defines the forward pass. `nn.Parameter`
# turns a tensor into a parameter: autograd computes a gradient for it, and the module registers it
# under the name of the attribute, here `w` or `b`.

# %% [markdown] lang="zh"
# 权重和偏置正在接近真实值，轮次再多一些会更接近。
#
# ## 换用 PyTorch 的工具
#
# **模型**。`nn.Module` 保存参数，并定义前向传播。`nn.Parameter` 把张量变成参数：自动求导会为它求梯度，模块则按属性名（这里是 `w` 和 `b`）注册它。


# %% tags=["setup"]
class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(features, dtype=kind))
        self.b = nn.Parameter(torch.zeros(1, dtype=kind))

    def forward(self, x):
        return x @ self.w + self.b  # (n,)


# %% check="parameters"
model = Line().to(device)
{name: parameter.shape for name, parameter in model.named_parameters()}

# %% [markdown] lang="en"
# (`nn.Linear(features, 1)` is a ready-made layer of this kind. It starts from random weights; our
# model starts from zeros, so that we can compare its results with those of the handwritten loop.)
#
# **The data.** A `DataLoader` divides a data set into batches. With `shuffle=True` it draws a new
# order in each epoch, which is what you want in practice. Does every sample still appear exactly
# once? We send the numbers $0, 1, 2, \dots$ through it. Do they keep their order, and what do we get
# if we sort them?

# %% [markdown] lang="zh"
# （`nn.Linear(features, 1)` 就是这样一个现成的层。它的权重用随机数初始化；我们的模型把参数初始化为零，便于与手写的循环比较。）
#
# **数据**。`DataLoader` 把数据集分成批量。加上 `shuffle=True`，每个轮次都重新打乱顺序，实际训练时就该这样做。打乱之后，每个样本还是恰好出现一次吗？我们用 $0, 1, 2, \dots$ 作数据，交给它来分批。顺序还是原来的吗？排序之后又会得到什么？

# %% check="each_sample_once"
from torch.utils.data import DataLoader, TensorDataset

order = torch.cat(list(DataLoader(torch.arange(samples), shuffle=True)))
torch.equal(order, torch.arange(samples)), order.sort().values

# %% [markdown] lang="en"
# **The update.** `optim.SGD` subtracts `lr` times the gradient from every parameter; SGD means
# stochastic gradient descent. `zero_grad` clears the gradients.
#
# You will find the following loop, almost word for word, in most training scripts. Here the samples
# stay in their order, so that the batches are the same as in the handwritten loop.

# %% [markdown] lang="zh"
# **更新**。`optim.SGD` 从每个参数中减去 `lr` 与梯度的乘积；SGD 是随机梯度下降（stochastic gradient descent）的缩写。`zero_grad` 清除梯度。
#
# 大多数训练脚本里都有与下面几乎相同的循环。这里不打乱样本，使各批与手写的循环相同。


# %% tags=["setup"]
def train(model, loader, optimizer, epochs):
    losses = []
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses)


# %% [markdown] lang="en"
# Compare the losses with those of the handwritten loop: how many of them should differ?

# %% [markdown] lang="zh"
# 与手写循环的损失比较：应该有几个不同？

# %% check="losses_by_module"
loader = DataLoader(TensorDataset(x, y), batch_size=batch)
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
train(model, loader, optimizer, epochs)

# %% [markdown] lang="en"
# None: all steps agree, and so do the final weights. The first row below comes from the handwritten
# loop, and the second row from the loop with PyTorch's parts. The automatic check of this cell
# computes the same weights in NumPy from the formulas above.

# %% [markdown] lang="zh"
# 一个也没有：每一步都一致，最后的权重也一致。下面第一行来自手写的循环，第二行来自用 PyTorch 工具写的循环。这一格的自动检查还用 NumPy 按上面的公式算出权重，结果与这两行一致。

# %% check="weights_compared"
torch.stack([joined(w, b), joined(model.w, model.b)])

# %% [markdown] lang="en"
# ## Training and evaluation
#
# Some layers behave differently during and after training. `nn.Dropout(p)` zeroes each element with
# probability $p$ and divides the others by $1 - p$, so that the mean stays the same on average.
# This keeps a network from relying on single elements. A new module is in training mode. Which
# values do we get from a thousand ones, with $p = 0.2$?

# %% [markdown] lang="zh"
# ## 训练模式与评估模式
#
# 有些层在训练时和训练后的行为不同。`nn.Dropout(p)` 以概率 $p$ 把每个元素置零，其余元素除以 $1 - p$，使均值的期望保持不变。这样可以避免网络过分依赖个别元素。新建的模块处于训练模式。把一千个 1 送进去，取 $p = 0.2$，会得到哪些值？

# %% check="dropout_in_training"
dropout = nn.Dropout(0.2)
ones = torch.ones(1000, dtype=kind, device=device)
dropout(ones).unique()

# %% [markdown] lang="en"
# We get 0 and $1/0.8 = 1.25$. `eval()` switches to evaluation mode, in which dropout changes nothing:

# %% [markdown] lang="zh"
# 得到 0 和 $1/0.8 = 1.25$。`eval()` 切换到评估模式，这时 dropout 不做任何改变：

# %% check="dropout_in_evaluation"
dropout.eval()
dropout(ones).unique(), dropout(ones).sum()

# %% [markdown] lang="en"
# **Batch normalization** behaves differently, too. In training, it normalizes each feature: it
# subtracts the mean over the *batch* and divides by the standard deviation over the batch; it also
# moves a running mean and a running variance a tenth of the way towards the values of the batch. In
# evaluation, it uses the running values, so that a prediction does not depend on the other samples
# of its batch.

# %% [markdown] lang="zh"
# **批量归一化**在两种模式下的行为也不同。训练时，它对每个特征分别归一化：减去这个特征在**本批**上的均值，再除以它在本批上的标准差，同时让滑动均值和滑动方差向本批的值靠近，每次缩小差距的十分之一。评估时，它改用这两个滑动值，因此每个样本的预测都不受同批其他样本的影响。

# %% check="normalized"
norm = nn.BatchNorm1d(features, dtype=kind, device=device)
with torch.no_grad():
    in_training = norm(x)
    in_evaluation = norm.eval()(x)
in_training[0], norm.running_mean, norm.running_var, in_evaluation[0]

# %% [markdown] lang="en"
# The running mean started at 0 and the running variance at 1. Both have moved only a tenth of the
# way, so the two results for the same sample differ. If you forget `eval()` before a test, or
# `train()` after it, there is no error, but the values are wrong. Make it a habit to call
# `model.eval()` before a test, to run the test under `torch.no_grad()`, and to call `model.train()`
# before you continue.

# %% [markdown] lang="zh"
# 滑动均值从 0 开始，滑动方差从 1 开始，两者都只移动了十分之一，所以同一个样本的两个结果不同。测试前忘了 `eval()`，或测试后忘了 `train()`，都不会报错，结果却是错的。要养成习惯：测试用 `model.eval()` 和 `torch.no_grad()`，继续训练用 `model.train()`。

# %% [markdown] lang="en"
# ## Saving and loading
#
# The **state** of a module is a dictionary with the name and the values of each parameter. It also
# contains the values that a layer keeps without training them, such as the running mean and the
# running variance of batch normalization.

# %% [markdown] lang="zh"
# ## 保存与加载
#
# 模块的**状态**是一个字典，包含每个参数的名字和值，也包含各层保存的、不参与训练的值，例如批量归一化的滑动均值和滑动方差。

# %% check="state"
model.state_dict()

# %% [markdown] lang="en"
# `torch.save` writes it to a file, and `torch.load` reads it. (`weights_only=True`, the default,
# refuses files that could execute code. On a machine without a GPU, add `map_location="cpu"` to
# read a file with tensors that were on a GPU.)
#
# To continue the training as if it had never stopped, you need more than the weights. SGD with
# **momentum** $\mu$ moves along a velocity, which it remembers from step to step:
#
# $$\mathbf{v} \leftarrow \mu \mathbf{v} + \nabla L, \qquad
# \mathbf{w} \leftarrow \mathbf{w} - \text{lr} \cdot \mathbf{v} .$$
#
# Therefore a **checkpoint** holds the optimizer's state as well. Here we train one epoch, save a
# checkpoint, and train another.

# %% [markdown] lang="zh"
# `torch.save` 把它写入文件，`torch.load` 把它读回来。（默认的 `weights_only=True` 会拒绝可能执行代码的文件；如果文件保存的是 GPU 上的张量，在没有 GPU 的机器上读取时要加上 `map_location="cpu"`。）
#
# 要让训练像从未中断过一样继续下去，只有权重还不够。带**动量** $\mu$ 的 SGD 按照“速度” $\mathbf{v}$ 更新权重，而每一步的速度都要用到上一步的速度：
#
# $$\mathbf{v} \leftarrow \mu \mathbf{v} + \nabla L, \qquad
# \mathbf{w} \leftarrow \mathbf{w} - \text{lr} \cdot \mathbf{v} 。$$
#
# 因此，供以后恢复训练用的**检查点**（checkpoint）还要包含优化器的状态。这里先训练一个轮次，保存检查点，再训练一个轮次。

# %%
checkpoint = Path(tempfile.mkdtemp()) / "checkpoint.pt"
model = Line().to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
train(model, loader, optimizer, epochs=1)
states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
torch.save(states, checkpoint)
train(model, loader, optimizer, epochs=1)
uninterrupted = joined(model.w, model.b)


# %% [markdown] lang="en"
# Now imagine that the program was interrupted after saving. It starts again, loads the file, and
# trains the second epoch. The first row below comes from the training without an interruption. For
# the second row we load everything, and for the third we forget the state of the optimizer. Which
# rows are equal?

# %% [markdown] lang="zh"
# 现在设想程序在保存之后中断了。它重新启动，加载文件，再训练第二个轮次。下面第一行来自没有中断的训练；第二行加载了全部状态；第三行忘了加载优化器的状态。哪几行相同？


# %%
def resume(with_optimizer):
    saved = torch.load(checkpoint)
    restored = Line().to(device)
    restored.load_state_dict(saved["model"])
    optimizer = torch.optim.SGD(restored.parameters(), lr=lr, momentum=0.9)
    if with_optimizer:
        optimizer.load_state_dict(saved["optimizer"])
    train(restored, loader, optimizer, epochs=1)
    return joined(restored.w, restored.b)


# %% check="resumed"
torch.stack([uninterrupted, resume(with_optimizer=True), resume(with_optimizer=False)])

# %% [markdown] lang="en"
# The first two rows are equal. Without the optimizer's state, the velocity starts at zero again, so
# the weights differ, and there is no error.
#
# ## An autograd of your own
#
# How does `backward` work? Here is the idea for single numbers. A `Value` stores the values that it was
# computed from, and its derivative with respect to each of them.

# %% [markdown] lang="zh"
# 前两行相同。没有优化器的状态，速度又从零开始，所以权重不同，而且不报错。
#
# ## 自己写一个自动求导
#
# `backward` 是怎样工作的？下面以单个的数说明基本思想。一个 `Value` 保存它由哪些值计算得来，以及它对每个值的导数。


# %% tags=["setup"]
class Value:
    def __init__(self, data, sources=()):
        self.data = data
        self.grad = 0.0
        self.sources = sources  # pairs (value, derivative)

    def __add__(self, other):
        return Value(self.data + other.data, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other):
        sources = [(self, other.data), (other, self.data)]
        return Value(self.data * other.data, sources)


# %% [markdown] lang="en"
# The backward pass visits every value after all values that were computed from it, because only
# then is its gradient complete. So we first list the values in the order of computation, and then
# go through the list backwards with the chain rule. Note the `+=`: gradients add up.

# %% [markdown] lang="zh"
# 反向传播处理一个值之前，必须先处理完由它算出的所有值，因为这时它的梯度才是完整的。所以先按计算的顺序列出所有值，再从后往前逐个应用链式法则。注意其中的 `+=`：梯度要累加。


# %% tags=["setup"]
def in_order(value, found):  # sources first
    if value not in found:
        for source, _ in value.sources:
            in_order(source, found)
        found[value] = None
    return found


def backward(result):
    result.grad = 1.0
    for value in reversed(in_order(result, {})):
        for source, derivative in value.sources:
            source.grad += derivative * value.grad


# %% [markdown] lang="en"
# A good test of such a program is a value that is used twice. Let $z = a^2 + a$ and then
# $y = z \cdot z$, with $a = 3$. Predict $y$ and $dy/da = 2z\,(2a + 1)$.

# %% [markdown] lang="zh"
# 检验这样的程序，一个好办法是把同一个值用两次。令 $z = a^2 + a$，再令 $y = z \cdot z$，取 $a = 3$。先预测 $y$ 和 $dy/da = 2z\,(2a + 1)$。

# %% check="used_twice"
a = Value(3.0)
z = a * a + a
result = z * z
backward(result)
result.data, a.grad

# %% [markdown] lang="en"
# Now we compute the whole loss at $\mathbf{w} = 0$ and $b = 0$ from single numbers. Which loss and
# which gradient do you expect?

# %% [markdown] lang="zh"
# 现在不用张量，只用 `Value` 计算整个损失，仍在 $\mathbf{w} = 0$、$b = 0$ 处。损失和梯度应该是多少？

# %% check="own_gradient"
parameters = [Value(0.0) for _ in range(features + 1)]  # w and b
total = Value(0.0)
for inputs, target in zip(x.tolist(), y.tolist()):
    error = parameters[-1] + Value(-target)
    for weight, number in zip(parameters, inputs):
        error = error + weight * Value(number)
    total = total + error * error
loss = total * Value(1 / samples)
backward(loss)
loss.data, [parameter.grad for parameter in parameters]

# %% [markdown] lang="en"
# The loss and the gradient are those that PyTorch found at the first step. PyTorch does the same
# work, but with tensors instead of single numbers, and with hundreds of operations instead of two.

# %% [markdown] lang="zh"
# 损失和梯度都与 PyTorch 在第一步求出的相同。PyTorch 做的是同一件事，只不过处理的是张量而不是单个的数，运算不是两种，而是几百种。

# %% [markdown] lang="en"
# ## What to remember
#
# 1. A step: `zero_grad()`, forward pass, loss, `backward()`, `step()`.
# 2. Updates belong under `torch.no_grad()`; an optimizer does this for you.
# 3. `DataLoader(…, shuffle=True)` draws a new order in each epoch; the last batch may be smaller.
# 4. `model.eval()` and `torch.no_grad()` to test, `model.train()` to continue.
# 5. A checkpoint holds the state of the model *and* of the optimizer.

# %% [markdown] lang="zh"
# ## 要点
#
# 1. 一步：`zero_grad()`、前向传播、损失、`backward()`、`step()`。
# 2. 更新要放在 `torch.no_grad()` 中；优化器已经替我们做好这一点。
# 3. `DataLoader(…, shuffle=True)` 每个轮次重新打乱顺序；最后一批可能较小。
# 4. 测试用 `model.eval()` 和 `torch.no_grad()`，继续训练用 `model.train()`。
# 5. 检查点要保存模型的状态，**也**要保存优化器的状态。

# %% [markdown] lang="en"
# ## Exercises
#
# Replace each `...` with your own code.

# %% [markdown] lang="zh"
# ## 练习
#
# 把每一处 `...` 换成你自己的代码。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. Momentum by hand
#
# Take three steps on all samples with momentum 0.9, by the formula in the section on saving. The
# velocity `v` starts at zero. (There is no bias here.)

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 亲手写动量
#
# 用全部样本更新三步，动量取 0.9，公式见“保存与加载”一节。速度 `v` 从零开始。（这里没有偏置。）

# %% tags=["exercise"]
w = torch.zeros(features, dtype=kind, device=device, requires_grad=True)
v = torch.zeros_like(w)
for _ in range(3):
    loss = ((x @ w - y) ** 2).mean()
    ...  # gradient, velocity, update
with_momentum = w
with_momentum

# %% tags=["solution"] check="with_momentum"
w = torch.zeros(features, dtype=kind, device=device, requires_grad=True)
v = torch.zeros_like(w)
for _ in range(3):
    loss = ((x @ w - y) ** 2).mean()
    loss.backward()
    v = 0.9 * v + w.grad
    with torch.no_grad():
        w -= lr * v
    w.grad = None
with_momentum = w
with_momentum

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. The loss of all samples
#
# Compute the mean loss of a model over *all* samples, batch by batch. The mean of the batches' means
# is wrong if the last batch is smaller, because each of its samples would count too much. Therefore
# add up the sums of the squared errors instead, in evaluation mode and without recording a graph.
# (All weights of the model are 1.)

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 全部样本的损失
#
# 逐批计算模型在**全部**样本上的平均损失。如果最后一批较小，各批均值的平均值就不对，因为那一批里每个样本所占的比重过大。请改为累加每一批的平方误差之和，在评估模式下进行，并且不记录计算图。（模型的权重都是 1。）

# %% tags=["exercise"]
model = Line().to(device)
nn.init.ones_(model.w)
total = 0
for inputs, targets in zip(x.split(batch), y.split(batch)):
    error = model(inputs) - targets
    ...
mean_loss = total / samples, model.training
mean_loss

# %% tags=["solution"] check="mean_loss"
model = Line().to(device)
nn.init.ones_(model.w)
model.eval()
total = 0
with torch.no_grad():
    for inputs, targets in zip(x.split(batch), y.split(batch)):
        error = model(inputs) - targets
        total += (error**2).sum()
mean_loss = total / samples, model.training
mean_loss

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. One more operation
#
# Differentiate $e^{a \cdot a}$ with your own autograd. The operation $e^x$ is missing: its result
# is a `Value` with one source. Which derivative belongs to this source? (`np.exp` computes the number.)

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 再加一种运算
#
# 用自己写的自动求导对 $e^{a \cdot a}$ 求导。还缺 $e^x$ 这种运算：它的结果是一个 `Value`，只有一个来源。这个来源对应的导数是什么？（数值用 `np.exp` 计算。）

# %% tags=["exercise"]
a = Value(1 / samples)
power = a * a
result = Value(...)  # e to this power, with its source
...  # back to a
exponential = result.data, a.grad
exponential

# %% tags=["solution"] check="exponential"
a = Value(1 / samples)
power = a * a
number = float(np.exp(power.data))
result = Value(number, [(power, number)])
backward(result)
exponential = result.data, a.grad
exponential

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `epochs = 20`: do the weights come closer to the true ones?
# - `batch = 64` takes all samples at once. Does the loss still go up in single steps?
# - In a notebook, set `lr = 2`. What happens to the loss?
# - Remove `zero_grad()` from `train`. Which checks notice it?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `epochs = 20`：权重更接近真实值了吗？
# - `batch = 64` 一次用上全部样本。损失还会在个别步上升吗？
# - 在笔记本里设 `lr = 2`。损失会怎样？
# - 去掉 `train` 里的 `zero_grad()`。哪些检查项会发现这个错误？
