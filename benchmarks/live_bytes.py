"""The bytes of tensors that are alive, and the most there were at once."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ACTIVATIONS = "activations"
Workspace = Callable[[Any, Any], int]  # of an operator and its arguments: bytes that it takes while it works


def no_workspace(func: Any, args: Any) -> int:
    """What is counted on a GPU, whose libraries choose their workspace by what is free."""
    return 0


def workspace_on_cpu(func: Any, args: Any) -> int:
    """A CPU without instructions for half precision unfolds what such a convolution slides over (ATen's _slow_conv2d).

    Of a batch of images (batch, channels, height, width) and kernels (out, channels, h, w) that takes batch x channels x h
    x w x height x width values of the output's size.
    """
    if func not in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
        return 0
    backward = func is torch.ops.aten.convolution_backward.default
    images, kernels = (args[1], args[2]) if backward else (args[0], args[1])
    if images.dtype == torch.float32 or images.ndim != 4 or kernels.shape[2:].numel() == 1:
        return 0
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return 0
    stride = args[4] if backward else args[3]
    pixels = images.shape[2] * images.shape[3] // (stride[0] * stride[-1])
    return int(images.shape[0] * kernels.shape[1:].numel() * pixels * images.element_size())


class LiveBytes(TorchDispatchMode):
    """Inside of it every storage counts from the operation that makes it until nothing refers to it any more.

    Views count once. Works on real and on fake tensors alike. What a kernel uses inside of itself is not seen, but where
    `workspace` tells it.

    Attributes:
        now: bytes alive, by kind.
        peak: the most bytes of all kinds together.
        most: the most bytes of each kind.
    """

    def __init__(self, workspace: Workspace = no_workspace) -> None:
        super().__init__()
        self._workspace = workspace
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.peak = 0
        self._kinds: dict[int, str] = {}
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.peak = max(self.peak, self.now.total() + self._workspace(func, args))
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, list | tuple) else (result,):
            if isinstance(value, Tensor):
                self.count(value)
            elif isinstance(value, list | tuple):  # of a list among several results
                self.count_all(value, None)
        return result

    def count(self, tensor: Tensor, kind: str | None = None) -> None:
        """Take note of a tensor; one that is known already changes its kind where one is given."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key not in self._kinds:
            self._references[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        elif kind is None or kind == self._kinds[key]:
            return
        else:
            self.now[self._kinds[key]] -= size
        self._kinds[key] = kind or ACTIVATIONS
        self.now[self._kinds[key]] += size
        self.most[self._kinds[key]] = max(self.most[self._kinds[key]], self.now[self._kinds[key]])
        self.peak = max(self.peak, self.now.total())

    def count_all(self, tensors: Iterable[Tensor], kind: str | None) -> None:
        for tensor in tensors:
            self.count(tensor, kind)

    def _forget(self, key: int, size: int) -> None:
        self.now[self._kinds.pop(key)] -= size
        del self._references[key]
