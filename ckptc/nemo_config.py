"""The text of a model_config.yaml at hand in, what belongs beside the files that are written out."""

from __future__ import annotations

from collections.abc import Mapping

from .runtime.nemo_archive import WRAPPERS, unwrap
from .yaml_text import has_scalar, set_scalar, value_at

DEGREES = {"tp": "tensor_model_parallel_size", "pp": "pipeline_model_parallel_size"}


def of_model(text: str, degrees: Mapping[str, int]) -> str:
    """The model's settings alone, where the text has more, with the degrees of the files; else byte for byte as it is."""
    import yaml

    config = yaml.safe_load(text)
    if not isinstance(config, dict):
        return text
    if any(isinstance(config.get(key), dict) for key in WRAPPERS):
        config = unwrap(config)
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    for rank, key in DEGREES.items():
        if rank in degrees and has_scalar(text, (key,)) and value_at(config, (key,)) != degrees[rank]:
            text = set_scalar(text, (key,), degrees[rank])
    return text
