"""A real LLM that loads in no time: a random Llama of a few narrow layers, whose tokens are the characters of ASCII."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llama4rec_core.llm import tree_attention  # noqa: F401  registers "tree"
from llama4rec_core.llm.model import LLM

N_TOKENS = 128


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character, numbered as in ASCII."""
    words = Tokenizer(models.WordLevel({chr(n): n for n in range(N_TOKENS)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=words)


def tiny(layers: int = 2, tied: bool = True, seed: int = 0) -> LLM:
    """In float32, with weights large enough that its probabilities are far from even."""
    config = LlamaConfig(
        vocab_size=N_TOKENS, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied, initializer_range=0.3, attn_implementation="tree",
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    return LLM("tiny", LlamaForCausalLM(config).eval(), tokenizer(), f"weights {layers} {tied} {seed}")


def saved(folder: Path, **how) -> Path:
    """Such an LLM's model folder."""
    llm = tiny(**how)
    llm.model.save_pretrained(folder)
    llm.tokenizer.save_pretrained(folder)
    return folder


@torch.inference_mode()
def next_log_p(llm: LLM, tokens, among=None) -> torch.Tensor:
    """log p of every token after `tokens`, read plainly: [V], or of the tokens `among` among themselves, in order."""
    logits = llm.model(torch.tensor([list(tokens)], device=llm.model.device)).logits[0, -1].float()
    return torch.log_softmax(logits if among is None else logits[list(among)], dim=-1)


def answer_log_p(llm: LLM, prefix, answer, among=()) -> float:
    """log p of an answer, token by token and without a tree: each among the vocabulary, or its own set of `among`."""
    total = 0.0
    for n, token in enumerate(answer):
        held = among[n].tokens if among else range(llm.model.config.vocab_size)
        total += next_log_p(llm, (*prefix, *answer[:n]), held)[list(held).index(token)].item()
    return total
