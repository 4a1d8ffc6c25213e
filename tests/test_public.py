"""What the package promises to those who import it: names, lightness, docs, errors, safety."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import pickle
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fairneuron as fn
from fairneuron import errors

SOURCE = Path(fn.__file__).parent
DOCUMENTED = {
    "Audit",
    "Comparison",
    "Conflict",
    "Dataset",
    "FairNeuron",
    "FairNeuronClassifier",
    "FairNeuronError",
    "FairNeuronWarning",
    "Paper",
    "Means",
    "PathNeurons",
    "Paths",
    "Predictor",
    "Repair",
    "RepairedClassifier",
    "Schedule",
    "Schema",
    "Search",
    "activation_paths",
    "activation_paths_on_ray",
    "audit",
    "audit_predictions",
    "baselines",
    "coloured",
    "compare",
    "judge",
    "load_dataset",
    "log_to_mlflow",
    "metrics",
    "mean_activations",
    "path_neurons",
    "path_synapses",
    "rare_paths",
    "read_images",
    "read_table",
    "repair",
    "reproduce",
    "search",
    "show_progress",
    "train_classifier",
}


def fresh(code: str) -> Any:
    """Runs code in a new interpreter; returns what it prints as JSON."""
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


# Names


def test_names_are_the_documented_ones() -> None:
    """The package offers the documented names, each of them once."""
    assert sorted(fn.__all__) == sorted(DOCUMENTED)


def test_names_are_those_that_type_checkers_see() -> None:
    """Type checkers are told of the same names, each from the module that has it."""
    tree = ast.parse(Path(fn.__file__).read_text(encoding="utf-8"))
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node)
    )
    seen = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(fn.__all__)
    for name, (module, original) in seen.items():
        assert name == original
        home = importlib.import_module(str(module))
        expected = (
            importlib.import_module(f"{module}.{name}")
            if name in ("baselines", "metrics")
            else getattr(home, name)
        )
        assert getattr(fn, name) is expected


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_name_resolves(name: str) -> None:
    """Each name is there, is listed by dir(), and comes from this package."""
    value = getattr(fn, name)
    assert name in dir(fn)
    home = value.__name__ if isinstance(value, ModuleType) else value.__module__
    assert home.startswith("fairneuron.")


@pytest.mark.parametrize("name", ["Audits", "nonsense", "__wrapped__", "_private", "torch"])
def test_unknown_name(name: str) -> None:
    """A name that is not there is an AttributeError that says so."""
    with pytest.raises(AttributeError, match=f"'fairneuron' has no attribute '{name}'"):
        getattr(fn, name)
    assert not hasattr(fn, name)


def test_star_import() -> None:
    """A star import gives all names and no others."""
    found: dict[str, Any] = {}
    exec("from fairneuron import *", found)  # noqa: S102  # a star import needs a module's level
    assert set(found) - {"__builtins__"} == DOCUMENTED


def test_version_is_that_of_the_distribution() -> None:
    """The version is the installed one."""
    assert fn.__version__ == version("fairneuron")
    assert "__version__" in dir(fn)


@pytest.mark.parametrize("module", ["baselines", "metrics"])
def test_names_of_subpackages(module: str) -> None:
    """The subpackages offer what they list, under its own name."""
    home = getattr(fn, module)
    for name in home.__all__:
        assert getattr(home, name).__name__ == name
    public = {
        name
        for name, value in vars(home).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(home.__all__)


# Lightness


@pytest.mark.parametrize(
    "code",
    [
        "import fairneuron",
        "import fairneuron as fn; dir(fn); fn.__all__; fn.__version__",
        "import fairneuron as fn; fn.FairNeuronError, fn.FairNeuronWarning",
        "import fairneuron.errors",
    ],
)
def test_import_is_light(code: str) -> None:
    """Importing the package, its errors too, imports no heavy library."""
    heavy = fresh(
        f"{code}\nimport json, sys\n"
        "print(json.dumps([n for n in ('torch', 'pandas', 'sklearn', 'numpy', 'safetensors',"
        " 'typer', 'rich') if n in sys.modules]))"
    )
    assert heavy == []


def test_functions_stay_functions() -> None:
    """fn.repair and fn.audit are functions, also where the modules of these names are imported."""
    found = fresh(
        "import json, sys, types\n"
        "import fairneuron.repair, fairneuron.audit\n"
        "import fairneuron as fn\n"
        "from fairneuron import audit, repair\n"
        "from fairneuron.repair import Repair\n"
        "kinds = [type(v).__name__ for v in (fn.repair, fn.audit, repair, audit)]\n"
        "same = fn.repair is sys.modules['fairneuron.repair'].repair, fn.Repair is Repair\n"
        "modules = [type(sys.modules[f'fairneuron.{n}']).__name__ for n in ('repair', 'audit')]\n"
        "print(json.dumps([kinds, same, modules]))"
    )
    assert found == [["function"] * 4, [True, True], ["module"] * 2]


def test_public_functions_can_be_pickled() -> None:
    """Functions and classes can be sent to other processes."""
    for name in DOCUMENTED - {"baselines", "metrics"}:
        value = getattr(fn, name)
        assert pickle.loads(pickle.dumps(value)) is value  # noqa: S301  # our own


# Documentation


def modules() -> list[ModuleType]:
    """Every module of the package that is written in Python."""
    found = pkgutil.walk_packages(fn.__path__, "fairneuron.")
    names = [m.name for m in found if m.name != "fairneuron._kernel"]
    return [importlib.import_module(name) for name in names if "__main__" not in name]


def described() -> Iterator[tuple[str, Any]]:
    """Every public class, function and method of the package, where it is defined."""
    for module in modules():
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            if name.startswith("_") or not own or not (inspect.isclass(value) or callable(value)):
                continue
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            yield f"{module.__name__}.{name}", value
            for inner, member in vars(value).items() if inspect.isclass(value) else ():
                plain = inspect.unwrap(getattr(member, "__func__", member))
                if inspect.isfunction(plain) and not inner.startswith("_"):
                    yield f"{module.__name__}.{name}.{inner}", plain


DESCRIBED = dict(described())
FUNCTIONS = {
    name: value
    for name, value in DESCRIBED.items()
    if inspect.isfunction(value) and not name.startswith("fairneuron.cli.")
}


def section(text: str, title: str) -> list[str]:
    """The names that a section of a docstring describes."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", inspect.cleandoc(text), re.MULTILINE)
    return re.findall(r"^    \*{0,2}(\w+):", found[1], re.MULTILINE) if found else []


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names of the parameters that somebody gives."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def test_walk_finds_the_package() -> None:
    """The tests below see the whole package."""
    assert {"fairneuron.repair.repair", "fairneuron.audit.Audit.marginal"} <= set(DESCRIBED)
    assert {"fairneuron.data.dataset.Dataset.from_frame"} <= set(DESCRIBED)
    files = [p for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE) != Path("__init__.py")]
    assert len(modules()) == len([p for p in files if p.name != "__main__.py"])


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.__name__)
def test_modules_say_what_they_are(module: ModuleType) -> None:
    """Every module says in a sentence what it is."""
    assert re.match(r"[A-Z].*\S", module.__doc__ or "")


@pytest.mark.parametrize("name", DESCRIBED)
def test_docstring(name: str) -> None:
    """Every public class, function and method has a docstring that ends its first sentence."""
    text = DESCRIBED[name].__doc__
    assert text, "no docstring"
    assert not text.startswith(f"{name.rsplit('.', 1)[-1]}("), "made up by dataclass"
    assert re.match(r"\S[^\n]*[.:]$", inspect.cleandoc(text).split("\n\n")[0].splitlines()[-1])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_args_are_the_parameters(name: str) -> None:
    """Where parameters are described, they are all described, in their order, and no others."""
    found = section(FUNCTIONS[name].__doc__ or "", "Args")
    assert found in ([], parameters(FUNCTIONS[name]))


def offered() -> dict[str, Callable[..., Any]]:
    """The functions that the package and its subpackages offer, and the ways to make data."""
    values = [getattr(fn, name) for name in DOCUMENTED]
    values += [getattr(home, name) for home in (fn.metrics, fn.baselines) for name in home.__all__]
    wanted = {f"{value.__module__}.{value.__qualname__}" for value in values if callable(value)}
    data = {name for name in FUNCTIONS if name.startswith("fairneuron.data.dataset.Dataset.")}
    return {name: f for name, f in FUNCTIONS.items() if name in wanted | data}


@pytest.mark.parametrize(
    "name",
    [name for name, function in offered().items() if len(parameters(function)) > 1],
)
def test_offered_functions_describe_their_parameters(name: str) -> None:
    """What the package offers describes its parameters, or says where, if there are several."""
    text = FUNCTIONS[name].__doc__ or ""
    elsewhere = re.search(r"arguments are those of\s+``(\w+)``", text)
    if elsewhere:
        other = getattr(fn, elsewhere[1]).__doc__
        shared = set(parameters(FUNCTIONS[name])) & set(section(other, "Args"))
        assert all(f"``{p}``" in text for p in parameters(FUNCTIONS[name]) if p not in shared)
    else:
        assert section(text, "Args") == parameters(FUNCTIONS[name])


def raised(function: Callable[..., Any]) -> set[str]:
    """Names of our errors that a function raises by itself."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return {
        call.func.id
        for call in calls
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and issubclass(getattr(errors, call.func.id, ValueError), errors.FairNeuronError)
    }


@pytest.mark.parametrize(
    "name",
    [name for name, function in offered().items() if raised(function)],
)
def test_raises_are_documented(name: str) -> None:
    """What the package offers names each of our errors that it raises by itself."""
    text = FUNCTIONS[name].__doc__ or ""
    assert {error for error in raised(FUNCTIONS[name]) if error not in text} == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_documented_errors_exist(name: str) -> None:
    """A docstring names no error that does not exist."""
    for error in section(FUNCTIONS[name].__doc__ or "", "Raises"):
        assert issubclass(getattr(errors, error), errors.FairNeuronError)


def dataclasses_of() -> dict[str, Any]:
    """The public dataclasses."""
    return {
        name: value
        for name, value in DESCRIBED.items()
        if inspect.isclass(value) and "__dataclass_fields__" in vars(value)
    }


@pytest.mark.parametrize("name", dataclasses_of())
def test_attributes_are_the_fields(name: str) -> None:
    """Where fields of a dataclass are described, they are all described, in their order."""
    kind = DESCRIBED[name]
    found = section(kind.__doc__ or "", "Attributes")
    own = vars(kind).get("__annotations__", {}).items()
    fields = [f for f, of in own if not (f.startswith("_") or str(of).startswith("ClassVar"))]
    few = len(fields) <= 2
    assert found == fields or (few and not found)


# Errors


def kinds(base: type[errors.FairNeuronError]) -> list[type[errors.FairNeuronError]]:
    """An error class and all its subclasses."""
    return [base, *(k for child in base.__subclasses__() for k in kinds(child))]


ERRORS = kinds(errors.FairNeuronError)


def test_errors_are_all_there() -> None:
    """The tests below see the documented classes."""
    found = {kind.__name__ for kind in ERRORS}
    assert found >= {"InputError", "DataError", "ModelError", "OptionError", "OutputError"}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("got", [None, "x", "", 0, 7.5, ("a", 1), [1, 2]], ids=repr)
def test_errors_survive_pickling(kind: type[errors.FairNeuronError], got: object) -> None:
    """Errors come back from other processes as they were."""
    error = kind("some-code", "A rule must hold", got=got, cure="Keep it.")
    for other in (
        *(pickle.loads(pickle.dumps(error, p)) for p in range(6)),  # noqa: S301  # our own
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert type(other) is kind
        assert (other.code, other.rule, other.cure) == ("some-code", "A rule must hold", "Keep it.")
        assert other.got == got
        assert str(other) == str(error)
        assert other.args == error.args
        assert other.exit_code == error.exit_code


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_tell_rule_value_and_cure(kind: type[errors.FairNeuronError]) -> None:
    """The text of an error has the rule, the value that broke it, and the cure."""
    full = kind("some-code", "A rule must hold", got=7, cure="Keep it.")
    assert str(full) == "A rule must hold; got 7. Keep it."
    assert str(kind("some-code", "A rule must hold", cure="Keep it.")).startswith(
        "A rule must hold. "
    )
    assert str(kind("some-code", "A rule must hold", got=0)) == "A rule must hold; got 0."


@pytest.mark.parametrize("kind", ERRORS)
def test_exit_codes(kind: type[errors.FairNeuronError]) -> None:
    """Bad input has the exit code 2, all else of ours 3."""
    assert kind("c", "R").exit_code == (2 if issubclass(kind, errors.InputError) else 3)


def test_warnings_are_no_errors() -> None:
    """A warning of ours is an ordinary one, so that it can be filtered, and ends in its code."""
    assert issubclass(fn.FairNeuronWarning, UserWarning)
    assert not issubclass(fn.FairNeuronWarning, fn.FairNeuronError)
    with pytest.warns(fn.FairNeuronWarning, match=r"^Mind the gap \[some-code\]$"):
        errors.warn("some-code", "Mind the gap")


def codes() -> Iterator[tuple[str, str]]:
    """Every code in the source, with its place."""
    known = {kind.__name__ for kind in ERRORS} | {"warn", "require_known"}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if called and node.func.id in known:
                for first in node.args[:1]:
                    if isinstance(first, ast.Constant):
                        yield f"{path.name}:{node.lineno}", first.value


def test_codes_are_kebab_case() -> None:
    """Codes are words with hyphens that begin with what they are about."""
    found = dict(codes())
    assert len(found) > 30
    about = r"(compare|data|model|option|output|metric)(-[a-z]+[0-9]*)+"
    assert {place: c for place, c in found.items() if not re.fullmatch(about, c)} == {}


# Safety

FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "builtins.eval",
    "builtins.exec",
    "os.system",
    "os.popen",
    *(f"os.exec{how}" for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
    *(f"os.spawn{how}" for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
    "os.posix_spawn",
    "os.posix_spawnp",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
    "asyncio.create_subprocess_exec",
    "asyncio.create_subprocess_shell",
    "importlib.import_module",
    "importlib.__import__",
    "importlib.util.spec_from_file_location",
    "torch.load",
    "torch.serialization.load",
    "torch.jit.load",
    "torch.export.load",
    "torch.package.PackageImporter",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.classes.load_library",
    "torch.ops.load_library",
    "torch.utils.cpp_extension.load",
    "torch.utils.cpp_extension.load_inline",
    "torch.storage._load_from_bytes",
    "pandas.read_pickle",
    "pandas.eval",
    "numpy.load",
}
FORBIDDEN_MODULES = {
    *("pickle", "_pickle", "dill", "cloudpickle", "jsonpickle", "joblib", "shelve", "marshal"),
    *("yaml", "code", "codeop", "runpy", "imp"),
    *("subprocess", "multiprocessing", "pty", "ctypes", "cffi", "ray"),
    *("socket", "socketserver", "ssl", "urllib", "requests", "httpx", "aiohttp", "http", "xmlrpc"),
    *("ftplib", "smtplib", "webbrowser", "mlflow"),
}
FORBIDDEN_OPTIONS = {("shell", True), ("allow_pickle", True), ("weights_only", False)}
FORBIDDEN_NAMES = {"load", "loads", "system", "popen", "eval", "exec", "read_pickle"}  # by getattr


def dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """The dotted name of an expression, with imported names in full; "" if it is none."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value, aliases)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def dangers(code: str) -> set[str]:
    """What a source file uses that could run code from a file, or reach out."""
    tree = ast.parse(code)
    aliases: dict[str, str] = {}
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported.add(alias.name)
                top = alias.name if alias.asname else alias.name.split(".")[0]
                aliases[alias.asname or top] = top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module)
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    used = {dotted(n, aliases) for n in ast.walk(tree) if isinstance(n, (ast.Name, ast.Attribute))}
    used |= set(aliases.values())
    found = (used & FORBIDDEN) | {n for n in imported if n.split(".")[0] in FORBIDDEN_MODULES}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for option in call.keywords:
            value = option.value.value if isinstance(option.value, ast.Constant) else None
            named = option.arg in {name for name, _ in FORBIDDEN_OPTIONS}
            if (option.arg, value) in FORBIDDEN_OPTIONS or (named and not isinstance(value, bool)):
                found.add(f"{option.arg}={ast.unparse(option.value)}")
        if dotted(call.func, aliases) == "getattr" and len(call.args) > 1:
            name = call.args[1].value if isinstance(call.args[1], ast.Constant) else None
            found |= {f"getattr {name}"} if name in FORBIDDEN_NAMES else set()
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(p)",
        "import torch as t\nt.load(p)",
        "from torch import load",
        "from torch import load as read\nread(p)",
        "import torch\nread = torch.jit.load",
        "import torch.jit\ntorch.jit.load(p)",
        "import torch.jit as j\nj.load(p)",
        "from torch import jit\njit.load(p)",
        "import torch\ntorch.export.load(p)",
        "import pickle",
        "def f():\n    from pickle import loads",
        "import joblib as j",
        "eval('1')",
        "f = exec",
        "import builtins\nbuiltins.eval('1')",
        "import numpy as np\nnp.load(p)",
        "import pandas as pd\npd.read_pickle(p)",
        "import urllib.request",
        "from os import system",
        "import os\nos.execv(p, [p])",
        "import os as o\no.posix_spawn(p, [p], {})",
        "from subprocess import run",
        "import subprocess as s\ns.run(p, shell=True)",
        "f(shell=True)",
        "f(weights_only=False)",
        "f(weights_only=trusted)",
        "f(allow_pickle=True)",
        "import torch\ngetattr(torch, 'load')(p)",
        "__import__('pickle')",
        "compile(t, 'f', 'exec')",
        "import importlib\nimportlib.import_module(n)",
        "from importlib import import_module",
        "import marshal",
        "import shelve",
        "from dill import loads",
        "from cloudpickle import loads",
        "from yaml import load",
        "from torch.package import PackageImporter",
        "from torch.hub import load",
        "from multiprocessing import Pool",
        "import ray.tune",
        "if x:\n    import http.client as h",
    ],
)
def test_dangers_are_seen(code: str) -> None:
    """The search below finds what it searches for."""
    assert dangers(code)


def test_harmless_is_not_seen() -> None:
    """The search below does not take a model's eval mode for eval."""
    code = "import json\nmodel.eval()\njson.load(f)\nmodel.load_state_dict(s)\nre.compile('x')"
    assert dangers(f"{code}\ngetattr(f, 'name')\ng(weights_only=True, shell=False)") == set()


IMPORT = "importlib.import_module"
ALLOWED = {
    "__init__.py": {IMPORT},  # our own modules, by a table
    "checkpoints.py": {"torch.load"},  # with weights_only=True, see below
    "compare/methods.py": {IMPORT},  # our own modules, by a table
    "compare/protocol.py": {IMPORT},  # libraries that a method names in its code
    "compare/running.py": {  # processes of a comparison
        *("multiprocessing", "multiprocessing.connection", "multiprocessing.process"),
    },
    "convert.py": {"subprocess"},  # starts the next one, after the sum was compared
    "io.py": {"ctypes"},  # asks the system to let two folders change places
    "convert_child.py": {  # reads what somebody trusts
        *("torch.load", "weights_only=False", "torch.jit.load", "joblib"),
        "torch.storage._load_from_bytes",
    },
    "data/download.py": {"http.client", "ssl", "urllib.error", "urllib.request"},
    "distributed.py": {"ray", "ray.data"},
    "kernel.py": {IMPORT},  # our own kernel
    "mlflow_log.py": {"mlflow"},  # where somebody logs to it
    "search/cluster.py": {"ray", "ray.tune"},
    "usercode.py": {IMPORT},  # what --model and --encode name
}


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_no_file_is_run(path: Path) -> None:
    """Nothing loads pickles, evaluates text, starts programs or opens sockets, but for these."""
    allowed = ALLOWED.get(path.relative_to(SOURCE).as_posix(), set())
    assert dangers(path.read_text(encoding="utf-8")) == allowed


def test_exceptions_are_of_files() -> None:
    """No exception is left over of a file that is gone."""
    assert all((SOURCE / name).is_file() for name in ALLOWED)


def test_torch_loads_weights_only() -> None:
    """Outside of the child of convert, torch.load is called once, for weights alone on the CPU."""
    tree = ast.parse((SOURCE / "checkpoints.py").read_text(encoding="utf-8"))
    named = [n for n in ast.walk(tree) if isinstance(n, ast.expr) and dotted(n, {}) == "torch.load"]
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.func in named]
    assert len(named) == len(calls) == 1
    options = {k.arg: ast.literal_eval(k.value) for k in calls[0].keywords}
    assert options == {"weights_only": True, "map_location": "cpu"}


def test_child_is_never_imported() -> None:
    """No module imports the one that unpickles; it is a program of its own."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(a.name for a in node.names)]
            assert not any("convert_child" in name for name in names)
