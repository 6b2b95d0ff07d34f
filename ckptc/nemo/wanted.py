"""What is asked of a conversion to NeMo 2 beyond any other: in, checked, and the family that it means out."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.fault import Fault

LAYOUT = "nemo2"
HF_FOLDER = "nemo_tokenizer"  # where NeMo 2 puts HuggingFace's files in the context folder
CONTEXT = "context"


@dataclass(frozen=True)
class Wanted:
    """What is asked of a conversion to NeMo 2: the model's id or family, and the tokenizer's file or folder, where given."""

    model_id: str | None = None
    tokenizer: str | None = None


def family_of(wanted: Wanted, to: str, family: str | None) -> str | None:
    """The family to convert with, which an id tells. Faults for what is asked of another layout, or does not agree."""
    if to != LAYOUT and wanted != Wanted():
        option = "a model id" if wanted.model_id else "a tokenizer"
        raise Fault("not-nemo2", f"{option} is given for NeMo 2's context folder, which layout `{to}` does not have", help=f"convert to `{LAYOUT}`, or leave it out")
    if wanted.model_id is None:
        return family
    from .nemo2_models import find_model

    named = find_model(wanted.model_id).family.name
    if family not in (None, named):
        raise Fault("other-family", f"`{wanted.model_id}` is a {named} model, and the family is given as {family}", help="leave --family out")
    return named
