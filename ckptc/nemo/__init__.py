"""What NeMo keeps beside weights: configs, tokenizers and other artifacts of NeMo 1 (`config`, `artifacts`,
`tokenizer`, `hf_tokenizer`, `strategy`), and the context of NeMo 2 (`nemo2_side`, `nemo2_context`, `nemo2_config`,
`nemo2_models`, `fiddle_json`).
"""
