"""Running a traced network step by step, and seeing the values of its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from fairneuron.errors import FairNeuronError, ModelError
from fairneuron.forward import first_line
from fairneuron.graph import Graph

_CASTS = ("float", "double", "half", "bfloat16", "to")


class Recorder(fx.Interpreter):
    """Runs a traced network and hands the value of each layer to a function.

    Args:
        graph: The traced network.
        see: Called with the position of a layer and its value ``(n, …)``; what it returns, if not
            None, takes the value's place.
        double: A float64 copy of the network's modules to run in place of its own; casts are
            skipped.
        read: Called with the position of a layer and the values that it reads, before it runs.
    """

    def __init__(
        self,
        graph: Graph,
        see: Callable[[int, torch.Tensor], torch.Tensor | None],
        double: nn.Module | None = None,
        read: Callable[[int, list[torch.Tensor]], None] | None = None,
    ) -> None:
        super().__init__(double or graph.module, graph=graph.module.graph)
        self.extra_traceback = False  # our errors say where
        self._index = {name: i for i, name in enumerate(graph.node_of)}
        self._nodes = {node.name: node for node in graph.module.graph.nodes}
        self._see, self._read = see, read
        self._graph = graph
        self._double = double is not None

    def run_node(self, n: fx.Node) -> Any:
        """Runs a step and shows its value."""
        index = self._index.get(n.name)
        if index is not None and self._read is not None:
            self._read(index, [self.value(s) for s in self._graph.layers[index].sources])
        value = self.run_step(n)
        if self._double and n.op == "call_method" and n.target in _CASTS:
            given = self.fetch_args_kwargs_from_env(n)[0][0]
            value = given if value.is_floating_point() and given.is_floating_point() else value
        if index is None or not isinstance(value, torch.Tensor):
            return value
        changed = self._see(index, value)
        return value if changed is None else changed

    def value(self, index: int) -> Any:
        """What a layer gave."""
        return self.env[self._nodes[self._graph.node_of[index]]]

    def run_step(self, n: fx.Node) -> Any:
        """Runs a step.

        Raises:
            ModelError: If it does not.
        """
        try:
            return super().run_node(n)
        except FairNeuronError:
            raise
        except Exception as error:  # whatever the user's step raises
            raise ModelError(
                "model-forward",
                "Each step of the model's forward must run",
                got=f"{first_line(error)} at {n.name!r}",
                cure="Check it with model(x), and that x is all that it casts or reshapes.",
            ) from error
