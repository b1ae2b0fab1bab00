"""What a model family has to say to be trained, evaluated, sampled and saved; another family is one more file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from conf.schema import Loss
from finetune.families.files import FamilyFiles
from finetune.objective import Objective

# What a denoiser is told beside the noisy latents and the time, by name: outputs of text encoders ("text_encoder",
# "text_encoder_2.pooled"), or their input where they train ("text_encoder.ids"), or sizes. One example has no batch
# dimension; a batch is stacked.
Conditioning = dict[str, Tensor]

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")


class Family(ABC):
    """One model family. Without state: modules, files and options are passed in."""

    files: ClassVar[FamilyFiles]
    denoiser_class: ClassVar[Any]
    targets: ClassVar[Mapping[str, Sequence[str]]]  # layers of the denoiser that an adapter is on, by preset

    @abstractmethod
    def objective(self, scheduler: Mapping[str, Any], loss: Loss | None = None) -> Objective:
        """What the base model was trained for, and is trained for here.

        Raises:
            RequestError: it is unknown, or an option does not go with it.
        """

    @abstractmethod
    def sampling_scheduler(self, scheduler: Mapping[str, Any], loss: Loss) -> Any:
        """A scheduler of diffusers that draws images; its input scaling is the identity."""

    @abstractmethod
    def text_encoder_class(self, part: str) -> Any:
        """Of transformers."""

    def tokenizer_class(self, part: str) -> Any:
        """Of transformers."""
        from transformers import CLIPTokenizer

        return CLIPTokenizer

    @abstractmethod
    def token_ids(self, part: str, tokenizer: Any, encoder_config: Any, caption: str) -> Tensor:
        """(tokens,) what a text encoder reads of a caption; a long one is cut."""

    @abstractmethod
    def encode(self, part: str, encoder: nn.Module, ids: Tensor) -> Conditioning:
        """What the denoiser needs of a text encoder's output on (batch, tokens), by name."""

    @abstractmethod
    def predict(self, denoiser: nn.Module, noisy: Tensor, times: Tensor, given: Conditioning) -> Tensor:
        """The denoiser's output on a batch, of the shape of `noisy`."""

    def trainable_text_encoders(self) -> tuple[str, ...]:
        """The text encoders that fine-tuning may train."""
        return self.files.text_encoders

    def unused_text_layers(self, part: str, encoder: nn.Module) -> list[nn.Module]:
        """Layers of a text encoder whose output the denoiser never sees."""
        return []

    def sizes(
        self, original: tuple[int, int], crop: tuple[int, int], target: tuple[int, int]
    ) -> Conditioning:
        """Conditioning on (height, width) of the file, (top, left) of the crop in it as resized, and of the result."""
        return {}


def clip_ids(tokenizer: Any, encoder_config: Any, caption: str) -> Tensor:
    """(tokens,) padded and cut to the length that a CLIP text encoder has positions for."""
    length = min(tokenizer.model_max_length, encoder_config.max_position_embeddings)
    ids: Tensor = tokenizer(
        [caption], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids[0]
    return ids


def penultimate(part: str, encoder: nn.Module, ids: Tensor) -> Conditioning:
    """The last but one hidden state of a CLIP text encoder, and what it pools where it has a projection."""
    output = encoder(ids, output_hidden_states=True)
    given = {part: output.hidden_states[-2]}
    if output[0].ndim == 2:
        given[f"{part}.pooled"] = output[0]
    return given


def layers_after_penultimate(encoder: Any) -> list[nn.Module]:
    """Layers of a CLIP text encoder without projection that its last but one hidden state does not depend on."""
    inner = getattr(encoder, "text_model", encoder)
    return [inner.encoder.layers[-1], inner.final_layer_norm]


def stack(examples: Sequence[Conditioning], device: torch.device) -> Conditioning:
    """A batch of examples that have the same names."""
    return {name: torch.stack([given[name] for given in examples]).to(device) for name in examples[0]}
