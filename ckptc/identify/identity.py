"""Which model a config says that it is, and which families read such a config.

    config.json           model_type, else architectures       HuggingFace
    context/model.yaml    _target_: nemo.collections.llm...     NeMo 2's class
    model_config.yaml     target: nemo.collections...           NeMo 1's class, one for all decoders
    run_config.yaml       model._target_: megatron.bridge...    Megatron-Bridge's provider, mostly one for all
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compiler.link.flat import Family, FlatLayout
from ..library.signs import signs_of

MODEL_TYPE, ARCHITECTURES, TARGET, NEMO_1 = "model_type", "architectures", "_target_", "target"
NEMO = "nemo.collections."
ANY = frozenset({"gpt"})  # NeMo 2's GPTModel, of which all are
_END = re.compile(r"(For[A-Z]\w*|LMHeadModel|PreTrainedModel|Model)$")
Identity = tuple[str, frozenset[str]]


@dataclass(frozen=True)
class Said:
    """What the config at `file` says that the model is: the `value` of `key`, and its class where it has both."""

    key: str
    value: str
    file: str
    architecture: str = ""

    @property
    def name(self) -> str:
        """How a sentence calls the model."""
        if self.key == MODEL_TYPE:
            return f'model_type "{self.value}"' + (f" ({self.architecture})" if self.architecture else "")
        return f"{self.value.rpartition('.')[2]} models" if self.key == ARCHITECTURES else f"`{self.value}`"

    @property
    def kind(self) -> str:
        """The class's name without what all have at its end, in small letters: `gemma2` of Gemma2ForCausalLM."""
        return _squashed(_END.sub("", self.value.rpartition(".")[2]))


def said_by(keys: Mapping[str, Any], file: str) -> Said | None:
    """What a config's keys say of the model; None where they say nothing."""
    classes = keys.get(ARCHITECTURES)
    first = next((each for each in classes if isinstance(each, str)), "") if isinstance(classes, list) else ""
    for key, value in ((MODEL_TYPE, keys.get(MODEL_TYPE)), (ARCHITECTURES, first), (TARGET, keys.get(TARGET)), (NEMO_1, keys.get(NEMO_1))):
        if isinstance(value, str) and value:
            return Said(key, value, file, first if key == MODEL_TYPE else "")
    return None


def identity_of(family: Family, layout: FlatLayout) -> Identity | None:
    """The key by which this layout's config says which model it is, and its values that are the family's; None where a
    config of any model is read. So says the config's `is`."""
    asked = (MODEL_TYPE, TARGET) if layout.name in family.own else (MODEL_TYPE,)  # an inherited class is the other model's
    return next(((key, frozenset(values)) for key, values in signs_of(layout).says if key in asked), None)


def reads(family: Family, said: Said) -> bool | None:
    """Whether the family is that of the model. None where nothing tells: it reads configs of any model, or none of this kind."""
    known = [identity for layout in family.layouts if (identity := identity_of(family, layout))]
    types = {value for key, values in known for value in values if key == MODEL_TYPE}
    if said.key == MODEL_TYPE:
        return said.value in types if types else _reads_any(family, said)
    if said.key == ARCHITECTURES:
        return said.kind in map(_squashed, types) if types else _reads_any(family, said)
    if said.key == TARGET and said.value.startswith(NEMO):
        if said.kind in ANY or _named(family, said) or (said.kind != "" and any(_squashed(each).startswith(said.kind) for each in types)):
            return True
        return False if any(key == TARGET for key, _ in known) else None
    return None


def families_of(families: Iterable[Family], said: Said | None) -> tuple[Family, ...]:
    """Those that may be the model's. None are where families here read such configs, and each of another model."""
    every = tuple(families)
    if said is None:
        return every
    answers = [(family, reads(family, said)) for family in every]
    if all(answer is None for _, answer in answers):
        return every
    theirs = tuple(family for family, answer in answers if answer)
    return tuple(family for family in theirs if _named(family, said)) or theirs  # rather than those of a like name


def is_strange(said: Said, families: Iterable[Family]) -> bool:
    """Whether a class of NeMo's is called as no family is, nor as the one that all decoders have: its MegatronT5Model."""
    return said.key in (TARGET, NEMO_1) and said.value.startswith(NEMO) and not any(name in said.kind for name in (*ANY, *(_squashed(f.name) for f in families)))


def _named(family: Family, said: Said) -> bool:
    """Whether a layout names the very value as the family's."""
    return any(said.value in identity[1] for layout in family.layouts if (identity := identity_of(family, layout)) and identity[0] == said.key)


def _reads_any(family: Family, said: Said) -> bool | None:
    """True where some layout reads a config of this name and asks nothing of the model in it."""
    name = Path(said.file).name
    return True if any(Path(signs_of(layout).config).name == name for layout in family.layouts) else None


def _squashed(name: str) -> str:
    """A name without what sets its parts apart, in small letters: Qwen2Moe and qwen2_moe are the same."""
    return re.sub(r"[_\-.\s]", "", name).lower()
