"""The text of a model_config.yaml at hand in, what belongs beside the files that are written out."""

from __future__ import annotations

from collections.abc import Mapping

from ..configs.yaml_text import has_scalar, set_scalar, value_at
from ..runtime.formats.nemo.archive import WRAPPERS, unwrap
from ..runtime.formats.nemo.interpolation import plain, resolve

# What a config's `precision` says of the tensors, and what is written for tensors of a dtype.
DTYPES = {"32": "float32", "32-true": "float32", "16": "float16", "16-mixed": "float16", "16-true": "float16",
          "bf16": "bfloat16", "bf16-mixed": "bfloat16", "bf16-true": "bfloat16"}  # fmt: skip
PRECISIONS: dict[str, str | int] = {"float32": 32, "float16": 16, "bfloat16": "bf16"}
DISTRIBUTED_FORMAT = "dist_ckpt_format"
DEGREES = {"tp": "tensor_model_parallel_size", "pp": "pipeline_model_parallel_size"}


def of_model(text: str, degrees: Mapping[str, int], dtype: str | None = None, distributed: str | None = None) -> str:
    """The model's settings alone, where the text has more, with the degrees of the files, the precision of the dtype
    that tensors are cast to, and the format of distributed files; else byte for byte as it is."""
    import yaml

    config = yaml.safe_load(text)
    if not isinstance(config, dict):
        return text
    if any(isinstance(config.get(key), dict) for key in WRAPPERS):
        config = plain(unwrap(resolve(config, "the config")))  # references to what is around the model lead nowhere without it
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    for rank, key in DEGREES.items():
        if rank in degrees and has_scalar(text, (key,)) and value_at(config, (key,)) != degrees[rank]:
            text = set_scalar(text, (key,), degrees[rank])
    if dtype in PRECISIONS and DTYPES.get(str(config.get("precision"))) != dtype:
        text = set_scalar(text, ("precision",), PRECISIONS[dtype])
    if distributed is not None and config.get(DISTRIBUTED_FORMAT) != distributed:
        text = set_scalar(text, (DISTRIBUTED_FORMAT,), distributed)
    return text
