# %% [markdown]
# # Images, and a group that leaks into them
#
# Digits are painted red or green, and the colour goes with the label: 90 % of the high digits are
# green, 90 % of the low ones red. A network that is to tell high digits from low ones learns to
# look at the colour. Where the colour means nothing any more, it fails, and for one group more
# than for the other. Here the reason of the gap is known, so one can see whether a repair finds it.

# %%
import numpy as np
import torch
from torch import nn

import fairneuron as fn

digits = fn.load_dataset("mnist")
train, valid, test = digits.split_by(scale=False)
rng = np.random.default_rng(0)
train, valid, test = (  # a part of them is enough to see it
    part.subset(rng.permutation(len(part))[:rows])
    for part, rows in ((train, 4000), (valid, 2000), (test, 4000))
)
high = range(5, 10)
train, valid = (fn.coloured(part, correlation=0.8, positive=high) for part in (train, valid))
test = fn.coloured(test, correlation=0, positive=high)  # the colour says nothing
print(train)

# %% [markdown]
# ## A small convolutional network, trained as usual

# %%
torch.manual_seed(0)
net = nn.Sequential(
    *(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 1)),
)
optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
labels = torch.from_numpy(train.y).float()
for _ in range(4):
    for rows in torch.randperm(len(labels)).split(64):
        loss = nn.functional.binary_cross_entropy_with_logits(
            net(train.x[rows])[:, 0], labels[rows]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
net.eval()
before = fn.audit(net, test)
before

# %% [markdown]
# ## Repair
#
# The colours have different shares of high digits in training, so equal shares of predictions
# (demographic parity) would be wrong here; what should be equal are the rates of both kinds of
# errors, which is equalised odds. Units are channels of the convolutions and neurons of the linear
# layer.

# %%
result = fn.repair(net, train, valid, limit={"eodds": 0.1}, seed=0)
print(result.explanation.sentence())
print(result.verdict.sentence())

# %%
after = fn.audit(result.model, test)
for name in ("accuracy", "worst_group_accuracy", "eodds"):
    print(f"{name}: {before.metrics[name]:.3f} before, {after.metrics[name]:.3f} after")

# %% [markdown]
# On test data, where the colour says nothing, accuracy rises as the gap shrinks: what the network
# had learnt about the colour was of no use there. With people it is seldom so simple: what a
# network has learnt about a group is often of use for its predictions, and then smaller gaps cost
# accuracy.
#
# ## What it looks at
#
# Whole networks are sliced: the path of an image goes through channels. Which ones are on more
# paths of green images than of red ones?

# %%
for name, model in (("before", net), ("after", result.model)):
    used = fn.path_neurons(model, test.x, test.group, names=test.group_names)
    largest = used.over_represented(1, top=3)
    print(
        name,
        [f"layer {n.layer}, unit {n.unit}: {n.share:.0%} against {n.others_share:.0%}"
         for n in largest],
    )  # fmt: skip
