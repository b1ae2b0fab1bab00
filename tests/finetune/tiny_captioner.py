"""A BLIP of the real classes with random weights, small enough to make in a test."""

from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
WORDS = ["a", "red", "box", "on", "white", "dog", "fox", "in", "the", "snow"]
PIXELS = 16


def make_captioner(folder: Path) -> Path:
    """Write the model with its processor as `save_pretrained` does; it answers every image with a few of WORDS."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]), encoding="utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), bos_token="[DEC]")
    torch.manual_seed(1)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = BlipTextConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        encoder_hidden_size=16,
        projection_dim=16,
        max_position_embeddings=64,
        bos_token_id=SPECIAL.index("[DEC]"),
        eos_token_id=SPECIAL.index("[SEP]"),
        sep_token_id=SPECIAL.index("[SEP]"),
        pad_token_id=SPECIAL.index("[PAD]"),
        **size,
    )
    vision = BlipVisionConfig(
        image_size=PIXELS, patch_size=8, projection_dim=16, initializer_range=0.5, **size
    )
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "crossattention" in name:  # random weights hardly look at the image: make it loud
                parameter.mul_(30.0)
        # Marks are never said, apart from the one that ends a caption.
        bias = model.text_decoder.cls.predictions.bias
        bias[: len(SPECIAL)] = -1e4
        bias[SPECIAL.index("[SEP]")] = 0.0
    model.save_pretrained(folder)
    processor = BlipProcessor(BlipImageProcessorPil(size={"height": PIXELS, "width": PIXELS}), tokenizer)
    processor.save_pretrained(folder)
    return folder
