"""Everything that can be wrong with a user's own model: handled, or refused before any work.

The numbers are those of the project's list of bad inputs.
"""

import copy
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import fairneuron as fn
from fairneuron.checks import check_model
from fairneuron.data.dataset import Dataset
from fairneuron.errors import FairNeuronError, ModelError
from fairneuron.models import logits, positive_score, task_loss
from tests.conftest import made_up
from tests.fuzzing import fuzz_models

RECIPES: dict[str, dict] = {
    "conflict": {"neuron_share": 0.1, "strengths": (0.5, 1.0), "stops": (0.5, 0.0), "epochs": 3},
    "paper": {"epochs": 1, "theta": 0.5},
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Makes the weights of every model the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def stack(*, inputs: int = 5, outputs: int = 1, extra: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    """A small network, the same each time; extra modules come after its first activation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(inputs, 8), nn.ReLU(), *extra, nn.Linear(8, 8), nn.ReLU(),
            nn.Linear(8, outputs),
        )  # fmt: skip
    return with_(net, lambda m: (m[-1].weight.mul_(9), m[-1].bias.sub_(0.5)))


Forward = Callable[[nn.Module, torch.Tensor], object]


def wired(forward: Forward, **members: object) -> nn.Module:
    """The small network's three layers a, b and c, and other members, with this forward."""

    class Wired(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (m for m in stack() if isinstance(m, nn.Linear))
            for name, member in members.items():
                if isinstance(member, torch.Tensor) and not isinstance(member, nn.Parameter):
                    self.register_buffer(name, member)
                else:
                    setattr(self, name, member)

    Wired.forward = forward
    return Wired()


def plain(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The stack, with functional activations."""
    return self.c(functional.relu(self.b(torch.relu(self.a(x)))))


def with_(model: nn.Module, change: Callable[[nn.Module], object]) -> nn.Module:
    """The model after a change without gradients."""
    with torch.no_grad():
        change(model)
    return model


def cached() -> nn.Module:
    """A model that kept an activation of its training."""
    model = wired(lambda self, x: self.c(remember(self, self.a(x)).relu()), last=None)
    model(torch.zeros(2, 5))
    return model


def remember(self: nn.Module, h: torch.Tensor) -> torch.Tensor:
    """Keeps a tensor and passes it on."""
    self.last = h
    return h


def counting(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Counts its calls in a buffer."""
    self.calls += 1
    return plain(self, x)


def hooked(name: str) -> nn.Module:
    """With a weight that a hook of the older kind computes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = stack()
        getattr(nn.utils, name)(model[2])
    return model


def pruned() -> nn.Module:
    """With half of a layer pruned away."""
    from torch.nn.utils import prune

    model = stack()
    prune.random_unstructured(model[2], "weight", amount=0.5)
    return model


def no_init() -> nn.Module:
    """Whose __init__ does not call the base's."""

    class Forgot(nn.Module):
        def __init__(self) -> None:
            pass

    return Forgot()


def no_neurons() -> nn.Module:
    """A hidden layer without units, and one after it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.Sequential(nn.Linear(5, 0), nn.ReLU(), nn.Linear(0, 5), nn.Linear(5, 1))
    return with_(net, lambda m: m[-1].bias.fill_(-9.0))


def quantised() -> nn.Module:
    """Dynamically: its outputs depend on the batch a little."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(stack(), {nn.Linear})


def scripted() -> nn.Module:
    """Compiled by TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(stack())


def same_rows(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Subtracts the batch's mean."""
    return plain(self, x - x.mean(0))


def in_place(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Overwrites its input."""
    return plain(self, x.mul_(2))


def unsupported(layer: nn.Module, forward: Forward) -> Callable[[], nn.Module]:
    """A stack after another layer."""
    return lambda: wired(lambda self, x: plain(self, forward(self, x)), other=layer)


class OwnLinear(nn.Linear):
    """A linear layer with another forward; a parametrised one is not entered by tracing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


# row, model, code of audit, of activation_paths, of repair; "" is success; of recipes that differ
# as conflict/paper
BAD: list[tuple[int, str, Callable[[], object], str, str, str]] = [
    (51, "too few", lambda: stack(inputs=4), *["model-width"] * 3),
    (51, "inside", lambda: wired(lambda self, x: plain(self, x[:, 1:])), *["model-width"] * 3),
    (51, "batch norm", lambda: nn.Sequential(nn.BatchNorm1d(4), stack(inputs=4)),
     *["model-width"] * 3),
    (51, "functional", lambda: wired(
        lambda self, x: self.c(functional.linear(x, self.w).relu()), w=torch.ones(8, 4)),
     *["model-forward"] * 3),
    (54, "half", lambda: stack().half(), "", "", ""),
    (54, "bfloat16", lambda: stack().bfloat16(), "", "", ""),
    (54, "half by itself", lambda: with_(stack(), lambda m: m[2].half()), *["model-forward"] * 3),
    (54, "casts to half", lambda: wired(lambda self, x: plain(self, x.half())).half(),
     "", "", "model-forward"),
    (54, "double", lambda: stack().double(), "", "", ""),
    (55, "no dropout", stack, "", "", ""),
    (56, "dropout 1", lambda: stack(extra=(nn.Dropout(1.0),)), "", "", "model-dropout"),
    (57, "batch norm", lambda: stack(extra=(nn.BatchNorm1d(8),)), "", "", ""),
    (59, "path", lambda: "model.pt", *["model-type"] * 3),
    (59, "state dict", lambda: stack().state_dict(), *["model-type"] * 3),
    (59, "class", lambda: nn.Sequential, *["model-type"] * 3),
    (59, "none", lambda: None, *["model-type"] * 3),
    (59, "function", lambda: torch.relu, *["model-type"] * 3),
    (59, "no init", no_init, *["model-type"] * 3),
    (59, "no forward", nn.Module, *["model-forward"] * 2, "model-frozen"),
    (60, "lazy", lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1)),
     *["model-lazy"] * 3),
    (61, "meta", lambda: stack().to("meta"), *["model-meta"] * 3),
    (62, "frozen", lambda: stack().requires_grad_(False), "", "", "model-frozen"),
    (62, "no parameters", lambda: nn.Flatten(0), "model-output", "model-output", "model-frozen"),
    (64, "weight norm", lambda: with_(stack(), lambda m: parametrizations.weight_norm(m[0])),
     "", "", ""),
    (65, "cached", cached, "", "", "model-nonleaf"),
    (65, "old weight norm", lambda: hooked("weight_norm"), "", "model-nonleaf", "model-nonleaf"),
    (65, "old spectral norm", lambda: hooked("spectral_norm"), "", "model-nonleaf",
     "model-nonleaf"),
    (65, "pruned", pruned, "", "model-nonleaf", "model-nonleaf"),
    (65, "lock", lambda: wired(plain, lock=threading.Lock()), "", "", "model-copy"),
    (65, "copies are the same", lambda: with_(wired(plain), lambda m: setattr(
        type(m), "__deepcopy__", lambda self, _: self)), "", "", "model-copy"),
    (66, "NaN", lambda: with_(stack(), lambda m: m[2].weight[0, 0].fill_(torch.nan)),
     *["model-nonfinite"] * 3),
    (66, "infinite", lambda: with_(stack(), lambda m: m[2].bias[0].fill_(torch.inf)),
     *["model-nonfinite"] * 3),
    (66, "buffer", lambda: with_(stack(extra=(nn.BatchNorm1d(8),)),
                                 lambda m: m[2].running_var[0].fill_(torch.inf)),
     *["model-nonfinite"] * 3),
    (66, "mask", lambda: wired(plain, mask=torch.full((3,), -torch.inf)), "", "", ""),
    (66, "overflow", lambda: with_(stack(), lambda m: [p.fill_(1e30) for p in m.parameters()]),
     *["model-nonfinite"] * 3),
    (68, "tuple", lambda: wired(lambda self, x: (plain(self, x), x)), *["model-output"] * 3),
    (68, "dict", lambda: wired(lambda self, x: {"y": plain(self, x)}), *["model-output"] * 3),
    (68, "nothing", lambda: wired(lambda self, x: None), *["model-output"] * 3),
    (68, "classes", lambda: wired(lambda self, x: (plain(self, x) > 0).long()),
     *["model-output"] * 3),
    (68, "one number", lambda: wired(lambda self, x: plain(self, x).sum()), *["model-output"] * 3),
    (68, "three dimensions", lambda: wired(lambda self, x: plain(self, x)[None]),
     *["model-output"] * 3),
    (68, "no classes", lambda: wired(lambda self, x: plain(self, x)[:, :0]), *["model-output"] * 3),
    (69, "(n,)", lambda: nn.Sequential(stack(), nn.Flatten(0)), "", "", ""),
    (69, "three classes", lambda: stack(outputs=3), "", "", ""),
    (70, "convolution", unsupported(nn.Conv1d(1, 1, 3, padding=1),
     lambda self, x: self.other(x[:, None])[:, 0]), "", "", ""),
    (70, "recurrent", unsupported(nn.LSTM(5, 5, batch_first=True),
     lambda self, x: self.other(x[:, None])[0][:, 0]), "", "model-unsupported",
     "/model-unsupported"),
    (70, "recurrent over rows", unsupported(nn.LSTM(5, 5), lambda self, x: self.other(x)[0]),
     *["model-batch"] * 3),
    (70, "embedding", unsupported(nn.Embedding(9, 5), lambda self, x: x + self.other(
        x[:, 4].long())), "", "", ""),
    (70, "attention", unsupported(nn.MultiheadAttention(5, 1, batch_first=True),
     lambda self, x: self.other(*[x[:, None]] * 3)[0][:, 0]), "", "", ""),
    (70, "attention of several", unsupported(nn.MultiheadAttention(5, 1, batch_first=True),
     lambda self, x: self.other(x[:, None], x[:, None], x[:, None])[0][:, 0]), "",
     "model-unsupported", "/model-unsupported"),
    (70, "layer norm", unsupported(nn.LayerNorm(5), lambda self, x: self.other(x)), "", "", ""),
    (70, "linear over positions", lambda: wired(lambda self, x: self.c(
        self.one(x[..., None]).flatten(1)), one=nn.Linear(1, 8), c=nn.Linear(40, 1)), "", "", ""),
    (70, "branch", lambda: wired(lambda self, x: plain(self, x) if x.sum() > 1e9
     else -plain(self, x)), "", "model-untraceable", "model-untraceable"),
    (70, "hook", lambda: with_(stack(), lambda m: m.register_forward_hook(
        lambda *a: 2 * a[-1])), "", "model-untraceable", "model-untraceable"),
    (70, "hooks inside", lambda: nn.Sequential(with_(stack(), lambda m: m.register_forward_hook(
        lambda *a: 2 * a[-1]))), "", "", ""),
    (70, "other linear", lambda: with_(nn.Sequential(OwnLinear(5, 8), nn.Linear(8, 1)),
     lambda m: parametrizations.weight_norm(m[0])), "", "model-unsupported", "model-unsupported"),
    (70, "no hidden layer", lambda: nn.Linear(5, 1), "", "model-no-hidden", "model-no-hidden"),
    (70, "constant", lambda: wired(lambda self, x: self.answer, answer=torch.ones(1)),
     *["model-output"] * 3),
    (71, "called twice", lambda: wired(lambda self, x: self.c(self.b(self.b(
        self.a(x).relu()).relu()).relu())), "", "", ""),
    (71, "functional", lambda: wired(plain), "", "", ""),
    (72, "noise", lambda: wired(lambda self, x: plain(self, x + torch.randn_like(x))),
     *["model-stochastic"] * 3),
    (72, "active dropout", lambda: wired(lambda self, x: plain(
        self, functional.dropout(x, 0.5, training=True))), *["model-stochastic"] * 3),
    (72, "counter", lambda: wired(counting, calls=torch.zeros(1)), "", "", "model-stateful"),
    (72, "batch mean", lambda: wired(same_rows), *["model-batch"] * 3),
    (72, "batch statistics", lambda: stack(extra=(nn.BatchNorm1d(8, track_running_stats=False),)),
     *["model-batch"] * 3),
    (72, "batch size", lambda: wired(lambda self, x: plain(self, x.view(64, 5))),
     *["model-forward"] * 3),
    (72, "refuses eval mode", lambda: with_(wired(plain), lambda m: setattr(
        type(m), "train", lambda self, mode=True: 1 / 0)), *["model-mode"] * 3),
    (72, "sparse", lambda: wired(lambda self, x: plain(self, x).to_sparse()),
     *["model-output"] * 3),
    (72, "made in inference mode", torch.inference_mode()(stack), "", "", ""),
    (72, "no neurons", no_neurons, "", "model-unsupported", "model-unsupported"),
    (72, "quantised", quantised, "", "model-unsupported", "model-frozen"),
    (72, "compiled", lambda: torch.compile(stack(), backend="eager"), "", "model-untraceable",
     "model-untraceable"),
    (72, "scripted", scripted, "", "model-untraceable", "model-untraceable"),
    (72, "changes its input", lambda: wired(in_place), *["model-inplace"] * 3),
    (72, "no gradient", lambda: wired(lambda self, x: plain(self, x).detach()), "",
     "model-unsupported", "model-gradient"),
    (72, "wants integers", lambda: nn.Sequential(nn.Embedding(9, 5), nn.Flatten(),
     stack(inputs=25)), *["model-forward"] * 3),
    (72, "two inputs", lambda: wired(lambda self, x, z: plain(self, x + z)),
     *["model-forward"] * 3),
    (72, "raises", lambda: wired(lambda self, x: {}["missing"]), *["model-forward"] * 3),
    (72, "optional", lambda: wired(lambda self, x=None, scale=1.0: plain(self, x)), "", "", ""),
]  # fmt: skip


def code_of(work: Callable[[], object]) -> str:
    """The code of the error that comes out, "" if none does."""
    try:
        work()
    except FairNeuronError as error:
        found = error
    else:
        return ""
    assert found.cure
    assert "Traceback" not in str(found)
    assert "\n" not in str(found)
    return found.code


@pytest.mark.parametrize(
    ("make", "codes"),
    [pytest.param(row[2], row[3:], id=f"{row[0]} {row[1]}") for row in BAD],
)
def test_a_bad_model_is_refused_with_a_code_before_training(
    parts: tuple[Dataset, ...],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], object],
    codes: tuple[str, str, str],
) -> None:
    """An audit, slicing and both recipes: success, or this code, and no step of training."""
    train, valid, _ = parts
    assert code_of(lambda: fn.audit(make(), train)) == codes[0]
    assert code_of(lambda: fn.activation_paths(make(), train.x)) == codes[1]
    both = codes[2].split("/") if "/" in codes[2] else [codes[2]] * 2
    for (recipe, options), code in zip(RECIPES.items(), both, strict=True):
        with monkeypatch.context() as patch:
            if code:
                patch.setattr("fairneuron.recipes.train_together", None)
            found = code_of(partial(fn.repair, make(), train, valid, recipe=recipe, **options))
        assert found == code, recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_head_can_be_trained_alone_by_the_paper_only(parts, recipe: str) -> None:
    """Row 62: frozen hidden layers leave the recipe of neurons nothing."""
    model = stack()
    model[:4].requires_grad_(False)
    code = code_of(lambda: fn.repair(model, *parts[:2], recipe=recipe, **RECIPES[recipe]))
    assert code == {"conflict": "model-frozen", "paper": ""}[recipe]


def message(work: Callable[[], object]) -> str:
    """What the error says."""
    with pytest.raises(ModelError) as caught:
        work()
    return str(caught.value)


def test_a_wrong_width_names_what_there_is_and_what_is_left_out() -> None:
    """Row 51: the data's features, up to 20, and the sensitive columns that are no inputs."""
    x = torch.zeros(8, 25)
    y = np.arange(8) % 2
    names = [f"job={i}" for i in range(25)]
    data = Dataset.from_arrays(x, y, y, sensitive_names=["sex"], feature_names=names)
    said = message(lambda: fn.audit(nn.Sequential(nn.Flatten(), stack(inputs=26)), data))
    assert "The model expects 26 inputs; got data with 25: job=0, job=1, " in said
    assert "job=19 … and 5 more. No inputs are: sex (sensitive)." in said
    said = message(lambda: fn.audit(wired(lambda self, x: plain(self, x[:, :4])), data))
    assert "Its layer 'a' expects 5 inputs; got 4, from data with 25" in said


@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        (["age", "job", "pay"], "", ""),
        (["pay", "job", "age"], "model-feature-order", "age in place 0, where the model has pay"),
        (["age", "job"], "model-width", "missing: none; too many: pay"),
        (["age", "job", "pay", "sex"], "model-width", "missing: sex; too many: none"),
        (["age", "job", "debt"], "model-feature-names", "missing: debt; too many: pay"),
        (["age", "job", 7], "", ""),
    ],
)
@pytest.mark.parametrize("attribute", ["feature_names", "feature_names_in_"])
def test_a_models_own_feature_names_are_compared(
    names: list, code: str, said: str, attribute: str
) -> None:
    """Row 51: missing, surplus and swapped columns are named."""
    model = stack(inputs=3)
    setattr(model, attribute, np.array(names, dtype=object) if attribute[-1] == "_" else names)
    x = torch.zeros(8, 3)
    assert code_of(lambda: check_model(model, x, feature_names=["age", "job", "pay"])) == code
    if code:
        assert said in message(lambda: check_model(model, x, feature_names=["age", "job", "pay"]))
    check_model(model, x)
    check_model(model, x, feature_names=["x0", "x1", "x2"])  # made up by from_arrays


def test_float64_data_are_cast() -> None:
    """Row 52: a model reads what its weights are."""
    data = made_up(60)
    wide = Dataset.from_arrays(data.x.double().numpy(), data.y, data.group)
    for model in (stack(), stack().double(), stack().half()):
        assert fn.audit(model, wide).counts.sum() == 60
    paths = [fn.activation_paths(stack(), x).path_of for x in (data.x, data.x.double())]
    np.testing.assert_array_equal(*paths)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_repaired_model_has_the_precision_of_the_original(
    parts, dtype: torch.dtype, recipe: str
) -> None:
    """Row 54: class, keys and types are the same; other neurons' weights are bit-identical."""
    model = stack(extra=(nn.BatchNorm1d(8),)).to(dtype)
    before = copy.deepcopy(model.state_dict())
    found = fn.repair(model, *parts[:2], recipe=recipe, seed=0, **RECIPES[recipe])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for trial in found.trials:
        state = trial.model.state_dict()
        assert {k: v.dtype for k, v in state.items()} == {k: v.dtype for k, v in before.items()}
        if recipe == "conflict" and trial.number:
            assert type(trial.model) is type(model)
            changed = [k for k, v in state.items() if not torch.equal(v, before[k])]
            rows = {(n.layer, n.unit) for n in found.explanation.neurons}
            for key in changed:
                rows_changed = (state[key] != before[key]).reshape(len(state[key]), -1).any(1)
                assert {(key[0], u) for u in rows_changed.nonzero()[:, 0].tolist()} <= rows
            assert changed


@pytest.mark.parametrize("recipe", RECIPES)
def test_batch_norm_takes_a_last_batch_of_one_row(parts, recipe: str) -> None:
    """Row 57: n = k · batch + 1."""
    train, valid, _ = parts
    model = stack(extra=(nn.BatchNorm1d(8),))
    plan = fn.Schedule(epochs=2, batch_size=64)
    odd = train.subset(np.arange(129))
    found = fn.repair(model, odd, valid, recipe=recipe, **RECIPES[recipe] | {"schedule": plan})
    assert found.trials[1].rejected != "diverged"


@pytest.mark.parametrize("recipe", RECIPES)
def test_shared_weights_stay_shared(parts, recipe: str) -> None:
    """Row 58: one parameter under two names in every candidate, and both change."""
    model = stack(extra=(nn.Linear(8, 8), nn.ReLU()))
    model[4].weight = model[2].weight
    found = fn.repair(
        model, *parts[:2], recipe=recipe,
        **RECIPES[recipe] | ({"neuron_share": 1.0} if recipe == "conflict" else {}),
    )  # fmt: skip
    for trial in found.trials[1:]:
        assert trial.model[4].weight is trial.model[2].weight
        assert not torch.equal(trial.model[2].weight, model[2].weight)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential, r"Sequential\(\.\.\.\)"),
        ({}, "load_state_dict"),
        ("model.pt", "load the file's weights"),
        (no_init(), "super"),
        (len, "Give the module itself"),
    ],
)
def test_what_is_no_module_gets_its_own_cure(model: object, said: str) -> None:
    """Row 59: a class, a state dict, a path, a module without __init__."""
    with pytest.raises(ModelError, match=said):
        check_model(model, torch.zeros(2, 5))


@pytest.mark.parametrize("recipe", RECIPES)
def test_weight_norm_is_repaired_neuron_by_neuron(parts, recipe: str) -> None:
    """Row 64: keys stay; with the recipe of neurons, the weights of all others stay too."""
    model = stack()
    for layer in (model[0], model[2], model[4]):
        parametrizations.weight_norm(layer)
    found = fn.repair(model, *parts[:2], recipe=recipe, seed=0, **RECIPES[recipe])
    assert list(found.model.state_dict()) == list(model.state_dict())
    for trial in found.trials[1:]:
        changed = {
            (name, unit)
            for name in ("0", "2", "4")
            for unit, same in enumerate(
                (trial.model[int(name)].weight == model[int(name)].weight).all(1).tolist()
            )
            if not same
        }
        if recipe == "conflict":
            assert changed
            assert changed <= {(n.layer, n.unit) for n in found.explanation.neurons}


def test_weight_norm_changes_neither_paths_nor_audit(parts) -> None:
    """Row 64: it is another way to write the same network."""
    model = stack()
    normed = copy.deepcopy(model)
    for layer in (normed[0], normed[2]):
        parametrizations.weight_norm(layer)
    np.testing.assert_array_equal(
        fn.activation_paths(normed, parts[0].x).path_of,
        fn.activation_paths(model, parts[0].x).path_of,
    )
    assert fn.audit(normed, parts[0]).metrics == fn.audit(model, parts[0]).metrics


def test_coupled_weights_can_be_sliced_and_retrained_as_the_paper_does(parts) -> None:
    """Row 64: the recipe of neurons alone refuses them, by name."""
    model = stack()
    parametrizations.spectral_norm(model[2])
    train, valid, _ = parts
    assert len(fn.activation_paths(model, train.x)) > 1
    fn.repair(model, train, valid, recipe="paper", **RECIPES["paper"])
    said = message(lambda: fn.repair(model, train, valid, **RECIPES["conflict"]))
    assert "'2.weight', which SpectralNorm computes" in said


def test_a_cached_tensor_is_named(parts) -> None:
    """Row 65: where it is; detached, it is no obstacle."""
    model = cached()
    assert "'last'" in message(lambda: fn.repair(model, *parts[:2]))
    model.last = model.last.detach()
    fn.repair(model, *parts[:2], **RECIPES["conflict"])


def test_a_bad_weight_is_named() -> None:
    """Row 66: which, and how many of it."""
    model = with_(stack(), lambda m: m[2].weight[0, :3].fill_(torch.nan))
    assert "3 of 64 in '2.weight'" in message(lambda: check_model(model, torch.zeros(2, 5)))


def test_one_logit_heads_are_never_broadcast(parts) -> None:
    """Row 69: (n, 1) and (n,) have the same loss, scores, and repair."""
    data = parts[0]
    wide, flat = stack(), nn.Sequential(stack(), nn.Flatten(0))
    y = torch.from_numpy(data.y)
    assert torch.equal(
        task_loss(logits(wide, data.x), y), task_loss(logits(flat, data.x), y)
    )  # fmt: skip
    assert positive_score(logits(wide, data.x)).shape == (len(data),)
    results = [fn.repair(m, *parts[:2], seed=0, **RECIPES["conflict"]) for m in (wide, flat)]
    after = [r.trials[1].audit.metrics for r in results]
    assert after[0] == after[1]


def test_an_unsupported_layer_is_named_with_what_is_supported(parts) -> None:
    """Row 70: path, type, the kinds of layers that have a rule, and what takes any network."""
    make = next(row[2] for row in BAD if row[1] == "recurrent")
    said = message(lambda: fn.activation_paths(make(), parts[0].x))
    assert "LSTM at 'other'" in said
    assert "linear layers, convolutions, embeddings, attention" in said
    assert 'contribution="gradient"' in said
    assert len(fn.activation_paths(make(), parts[0].x, contribution="gradient")) > 1


def test_the_checks_leave_model_data_and_random_state_alone() -> None:
    """Row 72: the generator, modes, hooks, weights and inputs are as before."""
    model = wired(lambda self, x: plain(self, x + torch.randn_like(x))).train()
    x, before = torch.ones(70, 5), copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    for retrained in (False, True):
        with pytest.raises(ModelError):
            check_model(model, x, retrained=retrained)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert torch.equal(x, torch.ones(70, 5))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_a_counter_counts_predictions_alone() -> None:
    """Row 72: a model whose state changes can be audited; refusing a repair leaves it alone."""
    model = wired(counting, calls=torch.zeros(1))
    data = made_up(60)
    fn.audit(model, data)
    seen = float(model.calls)
    with pytest.raises(ModelError, match="another 'calls' after it"):
        fn.repair(model, data, data)
    assert float(model.calls) == seen


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_input_is_enough(recipe: str) -> None:
    """A model of x of width 1 is audited and repaired."""
    data = made_up(120)
    narrow = Dataset.from_arrays(data.x[:, :1], data.y, data.group)
    fn.repair(stack(inputs=1), narrow, narrow, recipe=recipe, **RECIPES[recipe])


def test_a_check_is_three_small_forwards() -> None:
    """However large the data are."""
    seen = []
    model = wired(lambda self, x: (seen.append(len(x)), plain(self, x))[1])
    check_model(model, torch.zeros(10_000, 5))
    assert seen == [64, 32, 2]


@pytest.mark.parametrize("seed", range(25))
def test_random_models_succeed_or_are_refused(seed: int) -> None:
    """Layers, functions, shapes and values out of a grab bag: no other error comes out."""
    fuzz_models(np.random.default_rng(seed))
