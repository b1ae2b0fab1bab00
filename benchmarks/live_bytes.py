"""The bytes of tensors that are alive, and the most there were at once."""

from collections import Counter
from collections.abc import Iterable
from typing import Any
import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

ACTIVATIONS = "activations"


class LiveBytes(TorchDispatchMode):
    """Inside of it every storage counts from the operation that makes it until nothing refers to it any more.

    Views count once. What a kernel uses inside of itself is not seen. Works on real and on fake tensors alike.

    Attributes:
        now: bytes alive, by kind.
        peak: the most bytes of all kinds together.
        most: the most bytes of each kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.peak = 0
        self._kinds: dict[int, str] = {}
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.count, result)
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

    def count_all(self, tensors: Iterable[Tensor], kind: str) -> None:
        for tensor in tensors:
            self.count(tensor, kind)

    def _forget(self, key: int, size: int) -> None:
        self.now[self._kinds.pop(key)] -= size
        del self._references[key]
