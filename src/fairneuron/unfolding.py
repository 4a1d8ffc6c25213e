"""Tracing into torch's own attention layers, which ``torch.fx`` takes for single steps.

They are written out as the linear layers, heads and additions that they are made of (Vaswani et
al. 2017, section 3), so that their parts have slicing rules.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import fx, nn
from torch.nn import functional


class Tracer(fx.Tracer):
    """Traces into attention and transformer layers that read one sequence, without masks."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is a single step: convolutions of other names are too."""
        kind = type(m)
        same = any(
            kind.forward is own.forward and kind._conv_forward is own._conv_forward
            for own in (nn.Conv1d, nn.Conv2d, nn.Conv3d)
            if issubclass(kind, own)
        )
        return same or super().is_leaf_module(m, module_qualified_name)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Goes over the parts of a tensor, whose number the step says."""
        name = getattr(obj.node.target, "__name__", obj.node.target)
        given = dict(zip(("x", "parts"), obj.node.args, strict=False)) | dict(obj.node.kwargs)
        parts = given.get("parts", given.get("chunks", given.get("split_size_or_sections")))
        if name == "split" and isinstance(parts, (list, tuple)):
            parts = len(parts)
        elif name != "chunk" or not isinstance(parts, int):
            return super().iter(obj)
        return iter([operator.getitem(obj, i) for i in range(parts)])

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Writes a layer out if it can be, else records it as a step."""
        unfold = _UNFOLDED.get(type(m))
        hooked = m._forward_hooks or m._forward_pre_hooks
        if (
            unfold is not None
            and not hooked
            and (unfolded := unfold(m, *args, **kwargs)) is not None
        ):
            return unfolded
        return super().call_module(m, forward, args, kwargs)


def _attention(
    m: nn.MultiheadAttention, query: Any, key: Any, value: Any, *others: Any, **options: Any
) -> tuple[Any, None] | None:
    """Self-attention; the weights that the module would return beside it are left out."""
    names = ("key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal")
    options |= dict(zip(names, others, strict=False))
    for name in ("need_weights", "average_attn_weights"):
        options.pop(name, None)
    one = query is key and key is value
    plain = m.in_proj_weight is not None and m.bias_k is None and not m.add_zero_attn
    if not (one and plain) or _masked((), options):
        return None
    x = _turned(m, query)
    both = functional.linear(x, m.in_proj_weight, m.in_proj_bias)
    q, k, v = (
        both.chunk(3, -1)[i].unflatten(-1, (m.num_heads, m.head_dim)).transpose(1, 2)
        for i in range(3)
    )
    heads = functional.scaled_dot_product_attention(q, k, v)
    joined = heads.transpose(1, 2).flatten(2)
    return _turned(m, functional.linear(joined, m.out_proj.weight, m.out_proj.bias)), None


def _turned(m: nn.MultiheadAttention, x: Any) -> Any:
    """With the samples first, or back, where the module has the steps first."""
    return x if m.batch_first else x.transpose(0, 1)


def _encoder_layer(m: nn.TransformerEncoderLayer, src: Any, *masks: Any, **options: Any) -> Any:
    if _masked(masks, options):
        return None

    turned = partial(_turned, m.self_attn)

    def attend(x: Any) -> Any:
        x = turned(x)
        return m.dropout1(turned(m.self_attn(x, x, x, need_weights=False)[0]))

    def feed(x: Any) -> Any:
        return m.dropout2(m.linear2(m.dropout(m.activation(m.linear1(x)))))

    src = turned(src)
    if m.norm_first:
        x = src + attend(m.norm1(src))
        return turned(x + feed(m.norm2(x)))
    x = m.norm1(src + attend(src))
    return turned(m.norm2(x + feed(x)))


def _encoder(m: nn.TransformerEncoder, src: Any, *masks: Any, **options: Any) -> Any:
    if _masked(masks, options):
        return None
    for layer in m.layers:
        src = layer(src)
    return src if m.norm is None else m.norm(src)


def _masked(masks: tuple[Any, ...], options: dict[str, Any]) -> bool:
    return any(given is not None and given is not False for given in (*masks, *options.values()))


_UNFOLDED: dict[type[nn.Module], Callable[..., Any]] = {
    nn.MultiheadAttention: _attention,
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerEncoder: _encoder,
}
