# %% [markdown]
# # Slicing and paths
#
# What made a prediction? *Slicing* goes from the output back to the inputs and keeps, at each
# active neuron, the fewest synapses that explain the share γ of its value. What is kept is the
# sample's *activation path*. This is the first half of the paper's method, and of use by itself.

# %%
import matplotlib.pyplot as plt
import numpy as np

import fairneuron as fn

data = fn.load_dataset("compas", sensitive="race", include_sensitive=True)
train, valid, test = data.split(seed=0)
net = fn.train_classifier(train, valid, hidden=(32, 32, 32), seed=0)  # or your own nn.Module

# %% [markdown]
# ## Paths, and how often they occur

# %%
paths = fn.activation_paths(net, train.x, gamma=0.9)
print(paths)
print("the most frequent ones are shared by", paths.counts[:5].tolist(), "people")

# %%
figure, axes = plt.subplots(figsize=(6, 3.2))
axes.loglog(np.arange(1, len(paths) + 1), paths.counts)
axes.set_xlabel("path, the most frequent first")
axes.set_ylabel("people on it")
axes.set_title("A few paths are shared by many, most by one person alone")
figure.tight_layout()

# %% [markdown]
# ## Rare paths
#
# The paper calls samples *biased* whose path is rare: shared by at most θ times as many as the
# most frequent one, or by nobody. Who are they?

# %%
rare = fn.rare_paths(paths, theta=1e-2)
for g, group in enumerate(train.group_names):
    inside = train.group == g
    print(f"{group}: {rare[inside].mean():.1%} of {inside.sum()} people have a rare path")
print(
    f"labels y = 1: {train.y[rare].mean():.1%} with a rare path, {train.y[~rare].mean():.1%} else"
)

# %% [markdown]
# Rare is nothing but rare: the network reached these predictions in an unusual way, and nobody
# need be wronged by that. In these data the share of people with a rare path is about the same in
# both groups, though not for both labels. Retraining on them (recipe `paper`) does not shrink the
# gap here: `docs/reproduction.md` of the repository has the measurements.
#
# ## The path of one person

# %%
first = paths.first[[0]]  # somebody on the most frequent path
for layer in fn.path_synapses(net, train.x[first], gamma=paths.gamma, means=paths.means):
    kept = sorted({(int(u), int(p)) for u, p in zip(layer.unit, layer.predecessor, strict=True)})
    print(f"into layer {layer.layer}:", ", ".join(f"{p} → {u}" for u, p in kept))

# %% [markdown]
# ## Which neurons are on the paths of a group?

# %%
used = fn.path_neurons(net, train.x, train.group, names=train.group_names, means=paths.means)
for neuron in used.over_represented(0, top=5):
    name = train.feature_names[neuron.unit] if neuron.is_input else f"{neuron.layer}.{neuron.unit}"
    print(
        f"{name}: on {neuron.share:.0%} of the paths of {train.group_names[0]}, "
        f"{neuron.others_share:.0%} of the others', adjusted p {neuron.p_adjusted:.1g}"
    )

# %%
shares = [counts / used.samples[:, None] for counts in used.counts]  # (groups, neurons) each
width = max(share.shape[1] for share in shares)
difference = np.full((len(shares), width), np.nan)
for row, share in enumerate(shares):
    difference[row, : share.shape[1]] = share[0] - share[1]
most = np.nanmax(np.abs(difference))

figure, axes = plt.subplots(figsize=(8, 2.4))
image = axes.imshow(difference, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
axes.set_yticks(range(len(used.layers)), used.layers)
axes.set_xlabel("neuron")
axes.set_title(f"Share of paths with a neuron: {used.cells[0]} minus {used.cells[1]}")
figure.colorbar(image)
figure.tight_layout()

# %% [markdown]
# An over-represented neuron is no cause yet: people of two groups differ in more than their group.
# What a neuron *carries* of the gap is measured by holding it at its mean. That is what the
# default repair starts from:

# %%
result = fn.repair(net, train, valid, limit={"dp": 0.05}, seed=0)
print(result.explanation.sentence())
carriers = [(neuron.layer, neuron.unit) for neuron in result.explanation.neurons]
print("those with the most leverage:", carriers[:5])
