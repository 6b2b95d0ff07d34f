"""`peer_transformers.py SRC DST`: a HuggingFace checkpoint loaded and saved by transformers."""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    source, target = sys.argv[1:]
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, low_cpu_mem_usage=True).save_pretrained(target)


if __name__ == "__main__":
    main()
