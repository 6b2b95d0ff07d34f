"""The files of a NeMo 2 checkpoint's `context/` folder: a model id, a NeMo 1 config and a tokenizer in, names and bytes out.

`io.json` holds the call that makes the model again, `model.yaml` the same for people and for exporters. NeMo 2 also records
the trainer that saved; there was none, so `trainer` is null, and NeMo 2 takes one from its caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..runtime.fault import Fault
from .fiddle_json import Call, Symbol, serialise
from .nemo2_config import config_arguments, config_class
from .nemo2_models import Model, find_model

FOLDER, GRAPH, MODEL = "context", "io.json", "model.yaml"

CONTEXT = Symbol("nemo.lightning.io.pl", "TrainerContext")
SENTENCEPIECE = Symbol("nemo.collections.common.tokenizers.sentencepiece_tokenizer", "SentencePieceTokenizer")
HUGGINGFACE = Symbol("nemo.collections.common.tokenizers.huggingface.auto_tokenizer", "AutoTokenizer")
TEXT_ARTIFACT = Symbol("nemo.lightning.io.artifact.file", "DirOrStringArtifact")


@dataclass(frozen=True)
class SentencePieceFile:
    """A SentencePiece model that is put into the context folder under `name`. `legacy` is NeMo 1's sentencepiece_legacy."""

    name: str
    legacy: bool = False


@dataclass(frozen=True)
class HuggingFaceFolder:
    """The files of a HuggingFace tokenizer, put into the folder `name` of the context folder."""

    name: str


@dataclass(frozen=True)
class HubTokenizer:
    """A HuggingFace tokenizer that NeMo 2 fetches by its name on the hub."""

    name: str


Tokenizer = SentencePieceFile | HuggingFaceFolder | HubTokenizer


def context_files(name: str, config: Mapping[str, Any], tokenizer: Tokenizer | None, dtype: str = "bfloat16") -> tuple[tuple[str, bytes], ...]:
    """`io.json` and `model.yaml`, which belong into the context folder beside the tokenizer's own files.

    `name` is a model id or a family, `config` the model's settings in NeMo 1's words, `dtype` that of the weights. Without a
    tokenizer the model has none, and NeMo 2's caller must give it one.
    """
    model = find_model(name)
    call = _model_call(model, config, tokenizer, dtype)
    root = Call(CONTEXT, {"model": call, "trainer": None, "extra": {}})
    return (GRAPH, json.dumps(serialise(root)).encode()), (MODEL, _yaml(model, call, tokenizer).encode())


def tokenizer_of(config: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer that a NeMo 1 config names, its file under the name that it has in the archive; None where it names none."""
    said = config.get("tokenizer")
    if not isinstance(said, Mapping):
        return None
    library, kind, file = said.get("library"), said.get("type"), said.get("model")
    if file and (library == "sentencepiece" or (library == "megatron" and kind == "GPTSentencePieceTokenizer")):
        base = str(file).removeprefix("nemo:").rsplit("/", 1)[-1]
        return SentencePieceFile(base, bool(said.get("sentencepiece_legacy")))
    if library == "huggingface" and kind:
        return HubTokenizer(str(kind))
    if kind is None and file is None:
        return None
    raise Fault(
        "other-tokenizer", f"the config's tokenizer, of library {library} and type {kind}, is not known in NeMo 2's context yet",
        help="name a SentencePiece model, or a HuggingFace tokenizer",
    )  # fmt: skip


def _model_call(model: Model, config: Mapping[str, Any], tokenizer: Tokenizer | None, dtype: str) -> Call:
    arguments: dict[str, Any] = {"config": Call(config_class(model, config), config_arguments(model, config, dtype))}
    match tokenizer:
        case SentencePieceFile(name, legacy):
            arguments["tokenizer"] = Call(SENTENCEPIECE, {"model_path": name, "legacy": legacy})
        case HuggingFaceFolder(name):
            arguments["tokenizer"] = Call(HUGGINGFACE, {"pretrained_model_name": name})
        case HubTokenizer(name):
            # A plain text would be taken as a path within the context folder.
            arguments["tokenizer"] = Call(HUGGINGFACE, {"pretrained_model_name": Call(TEXT_ARTIFACT, {"attr": name, "skip": True})})
    return Call(model.family.model, arguments)


def _yaml(model: Model, call: Call, tokenizer: Tokenizer | None) -> str:
    """The model's call as nested settings, with what the family's classes have of their own."""
    import yaml

    family = model.family
    own = {"activation_func": family.activation, "gated_linear_unit": family.gated, "position_embedding_type": "rope"}
    config: Call = call.arguments["config"]
    data = {
        "_target_": call.of.dotted,
        "config": _plain(Call(config.of, {**own, **config.arguments})),
        "model_transform": None,
        "optim": None,
        "tokenizer": _plain(call.arguments["tokenizer"]) if tokenizer else None,
    }
    if isinstance(tokenizer, HubTokenizer):
        data["tokenizer"]["pretrained_model_name"] = tokenizer.name
    return str(yaml.safe_dump(data, allow_unicode=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Call):
        return {"_target_": value.of.dotted, **{key: _plain(each) for key, each in value.arguments.items()}}
    return {"_target_": value.dotted, "_call_": False} if isinstance(value, Symbol) else value
