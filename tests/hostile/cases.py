"""All hostile inputs, by name."""

from __future__ import annotations

from . import archive_cases, safetensors_cases, text_cases, torch_cases
from .doors import Case

CASES: dict[str, Case] = {**safetensors_cases.CASES, **torch_cases.CASES, **archive_cases.CASES, **text_cases.CASES}
