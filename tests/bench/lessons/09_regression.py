# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 0}
#     parameters: {size: {min: 8, max: 512}, steps: {min: 1, max: 2000}}
# ---

# %% [markdown] lang="en"
# # A line through points
#
# The small training lesson that `invoke bench` runs many times: an optimizer, a loop, a plot.

# %% [markdown] lang="zh"
# # 过点作直线
#
# `invoke bench` 反复运行的小训练课：一个优化器，一个循环，一张图。

# %% tags=["parameters"]
seed: int = 0  # of the points
size: int = 64  # how many points
steps: int = 400  # of gradient descent
lr: float = 0.2  # learning rate

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

# %% [markdown] lang="en"
# Points near the line $y = 2x - 1$.

# %% [markdown] lang="zh"
# 直线 $y = 2x - 1$ 附近的点。

# %%
generator = np.random.default_rng(seed)
x = torch.from_numpy(generator.uniform(-1, 1, size))
y = 2 * x - 1 + torch.from_numpy(0.1 * generator.standard_normal(size))

# %% check="first_loss"
line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
((line[0] * x + line[1] - y) ** 2).mean()

# %% [markdown] lang="en"
# Now train.

# %% [markdown] lang="zh"
# 现在训练。

# %%
optimizer = torch.optim.SGD([line], lr=lr)
losses = []
for _ in range(steps):
    optimizer.zero_grad()
    loss = ((line[0] * x + line[1] - y) ** 2).mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

# %% check="line"
line

# %% check="last_loss"
losses[-1]

# %% tags=["figure"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
left.plot(x, y, ".", x, (line[0] * x + line[1]).detach())
right.semilogy(losses)
plt.show()

# %% [markdown] lang="en"
# **Figure.** Left: the points and the line. Right: the loss at each step.

# %% [markdown] lang="zh"
# **图**。左：点与直线。右：每一步的损失。
