"""Small parts of random weights that the tiny pipelines share: CLIP tokenizers and text configurations."""

from typing import Any

from transformers import CLIPTextConfig, CLIPTokenizer

TOKENS, WIDTH, PIXELS = 8, 16, 32
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
END = "<|endoftext|>"


def clip_words(padding: str = END) -> list[str]:
    """The vocabulary: single characters, inside and at the end of a word."""
    words = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", END]
    return words if padding in words else [padding, *words]


def clip_tokenizer(padding: str = END) -> CLIPTokenizer:
    """A tokenizer without merges; OpenCLIP's pads with "!", CLIP-L's with the end of text."""
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(clip_words(padding))},
        merges=[],
        unk_token=END,
        pad_token=padding,
        model_max_length=TOKENS,
    )


def clip_config(padding: str = END, width: int = WIDTH, layers: int = 1, **more: Any) -> CLIPTextConfig:
    """The text encoder that belongs to `clip_tokenizer(padding)`."""
    words = clip_words(padding)
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=words.index("<|startoftext|>"),
        eos_token_id=words.index(END),
        pad_token_id=words.index(padding),
        **more,
    )
