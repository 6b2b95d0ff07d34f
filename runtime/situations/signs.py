"""What people have that is no checkpoint ckptc can convert: how each kind is recognised, and what its owner can do. Data only.

Sources of the signs: git-lfs's docs/spec.md; ggml's docs/gguf.md; peft's save_and_load.py; DeepSpeed's engine.py
(_get_ckpt_name, _get_zero_ckpt_name) and pipe/module.py (ckpt_layer_path); transformers' quantizers; bitsandbytes'
QuantState.as_dict; compressed-tensors; NVIDIA Model Optimizer; openai/gpt-oss; Meta's llama and NeMo 1's model classes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sign:
    """A kind of thing: `title` goes after "X " as in "`file` is a GGUF file". One of the others tells it.

    `start`: the first bytes of a file. `file`: an expression that a file's name, relative to the checkpoint, matches in
    full. `tensor`: one that the names of some tensors contain; with `dtype`, those whose element type begins so.
    """

    code: str
    title: str
    why: str
    help: str
    start: bytes = b""
    file: str = ""
    tensor: str = ""
    dtype: str = ""


_LFS = "run `git lfs install` and `git lfs pull` in the clone, or download the repository again"
_ADAPTER = "merge it into its base model first: peft's model.merge_and_unload(), then save_pretrained(), and convert that folder"
_NEMO_ADAPTER = "merge it into its base model first, with NeMo's merge_lora_weights/merge.py or nemo.collections.llm.peft.merge_lora, and convert the result"
_ZERO = "bring its parts together first: python zero_to_fp32.py . OUT (DeepSpeed puts this script beside the checkpoint), and convert OUT"
_OTHER = "convert the model's safetensors or .bin files, which the same repository usually has"
_PLAIN = "take the model's repository without quantization"


def _loaded(how: str) -> str:
    return f"load it with transformers ({how}), model.save_pretrained() a plain copy, and convert that; or {_PLAIN}"


_DECODE = "its weights are codes and scales of a kind that ckptc does not decode"
_ALONE = "ckptc does not decode FP8 that has no scales beside it, or scales of a scheme that it does not know"
STARTS = (
    Sign("git-lfs-pointer", "is a git-lfs pointer and not the file itself", "git left the content on the server", _LFS, b"version https://git-lfs.github.com/spec/"),
    Sign("other-container", "is a GGUF file, of llama.cpp", "its tensors are blocks of its own formats", _OTHER, b"GGUF"),
    Sign("other-container", "is an HDF5 file, as Keras and TensorFlow write", "ckptc reads no HDF5", _OTHER, b"\x89HDF\r\n\x1a\n"),
    Sign("other-container", "is a zip compressed with zstd, or a .zst file", "it is packed", "unpack it first", b"\x28\xb5\x2f\xfd"),
    Sign("other-container", "is a numpy array", "ckptc reads no .npy files", _OTHER, b"\x93NUMPY"),
    Sign("web-page", "is a web page and not the file itself", "the download was answered with a page, such as one to log in", "download it again, signed in", b"<!DOCTYPE html"),
    Sign("web-page", "is a web page and not the file itself", "the download was answered with a page, such as one to log in", "download it again, signed in", b"<html"),
)
FILES = (
    Sign("zero3-checkpoint", "holds ZeRO-3 parts of DeepSpeed", "each file has a slice of every weight, flattened", _ZERO, file=r"(?:.*/)?zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt"),
    Sign("zero-checkpoint", "holds ZeRO optimizer state of DeepSpeed", "it has flat slices for each data parallel rank, beside model states or without them", _ZERO, file=r"(?:.*/)?(?:bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_optim_states\.pt"),
    Sign("deepspeed-pipeline", "holds a pipeline of DeepSpeed, a file for each layer", "tensors are named by the layer's place in the pipeline, which only the trainer's code knows", "convert it with its trainer's own script first (GPT-NeoX: tools/ckpts/convert_neox_to_hf.py; Megatron-DeepSpeed: tools/convert_checkpoint), and convert the result", file=r"(?:.*/)?layer_\d+-model_\d+(?:-model_states)?\.pt"),
    Sign("deepspeed-universal", "holds a universal checkpoint of DeepSpeed", "each weight has a folder of fp32 slices and moments", "load it with its trainer and save HuggingFace's files", file=r"(?:.*/)?zero/[^/]+/fp32\.pt"),
    Sign("deepspeed-checkpoint", "holds model states of DeepSpeed", "their names are those of the trainer's module", _ZERO, file=r"(?:.*/)?mp_rank_\d+_model_states\.pt"),
    Sign("adapter-alone", "holds an adapter (LoRA) and no model", "an adapter is what is added to a base model's weights", _ADAPTER, file=r"adapter_model\.(?:safetensors|bin)|adapter_config\.json"),
    Sign("other-container", "holds GGUF files, of llama.cpp", "their tensors are blocks of its own formats", _OTHER, file=r".*\.gguf"),
    Sign("other-container", "holds ONNX graphs", "their weights are named by the graph, not by the model", _OTHER, file=r"(?:.*/)?[^/]*\.onnx(?:_data|\.data)?"),
    Sign("other-container", "holds weights of Flax (msgpack)", "ckptc reads no msgpack", _OTHER, file=r"(?:.*/)?[^/]*\.msgpack(?:\.index\.json)?"),
    Sign("other-container", "holds weights of TensorFlow (HDF5)", "ckptc reads no HDF5", _OTHER, file=r"(?:.*/)?[^/]*\.(?:h5|hdf5|keras)"),
    Sign("other-container", "holds a checkpoint of TensorFlow", "ckptc does not read its index and data files", _OTHER, file=r"(?:.*/)?[^/]*\.(?:data-\d{5}-of-\d{5}|ckpt-\d+\.(?:index|meta))"),
    Sign("other-container", "holds numpy arrays, as MLX and others write", "ckptc reads no .npz or .npy files", _OTHER, file=r"(?:.*/)?[^/]*\.np[yz]"),
    Sign("other-container", "holds a checkpoint of Orbax, of JAX", "ckptc does not read its arrays", _OTHER, file=r"(?:.*/)?(?:_CHECKPOINT_METADATA|ocdbt\.process_\d+/.*|manifest\.ocdbt)"),
    Sign("other-container", "holds engines of TensorRT-LLM", "they are compiled for one GPU", _OTHER, file=r"(?:.*/)?[^/]*\.engine"),
    Sign("unfinished-download", "holds files that are still being downloaded", "they are not whole", "let the download end, or start it again", file=r"(?:.*/)?[^/]*\.(?:incomplete|part|crdownload|aria2|download)"),
)
# The first that some tensor shows is said, so what is more particular stands first.
QUANTIZED = (
    Sign("quantized-checkpoint", "is quantized with bitsandbytes (4 bit)", _DECODE, _loaded("model.dequantize()"), tensor=r"\.quant_state\.bitsandbytes__(?:nf4|fp4)$|\.(?:nested_)?(?:absmax|quant_map)$"),
    Sign("quantized-checkpoint", "is quantized with bitsandbytes (8 bit)", _DECODE, _loaded("model.dequantize()"), tensor=r"\.SCB$"),
    Sign("quantized-checkpoint", "is quantized with GPTQ", _DECODE, _PLAIN, tensor=r"\.g_idx$"),
    Sign("quantized-checkpoint", "is quantized with GPTQ or AWQ", _DECODE, _PLAIN, tensor=r"\.q(?:weight|zeros)$"),
    Sign("quantized-checkpoint", "is quantized to FP8 in blocks, as DeepSeek-V3 is", _ALONE, "cast it to bf16 first, with DeepSeek's inference/fp8_cast_bf16.py or transformers' FineGrainedFP8Config(dequantize=True), and convert the result", tensor=r"\.weight_scale_inv$|_scale_inv$"),
    Sign("quantized-checkpoint", "is quantized to MXFP4, as gpt-oss is", _DECODE, _loaded("Mxfp4Config(dequantize=True)"), tensor=r"_blocks$", dtype="uint8"),
    Sign("quantized-checkpoint", "is quantized with compressed-tensors (packed integers)", _DECODE, _loaded("CompressedTensorsConfig(run_compressed=False)"), tensor=r"\.weight_packed$"),
    Sign("quantized-checkpoint", "is quantized to NVFP4 by NVIDIA's Model Optimizer", _DECODE, _PLAIN, tensor=r"\.weight_scale_2$"),
    Sign("quantized-checkpoint", "is quantized with HQQ", _DECODE, _loaded("model.dequantize()"), tensor=r"\.W_q$"),
    Sign("quantized-checkpoint", "is quantized with AQLM", _DECODE, _PLAIN, tensor=r"\.codebooks$"),
    Sign("quantized-checkpoint", "is quantized for ExLlama (EXL2)", _DECODE, _PLAIN, tensor=r"\.q_weight$"),
    Sign("quantized-checkpoint", "is quantized to FP8", _ALONE, _loaded("model.dequantize()"), tensor=r"weight$", dtype="float8"),
    Sign("quantized-checkpoint", "is quantized to 8-bit integers", _DECODE, _PLAIN, tensor=r"weight$", dtype="int8"),
    Sign("quantized-checkpoint", "is quantized to bytes", _DECODE, _PLAIN, tensor=r"weight$", dtype="uint8"),
    Sign("quantized-checkpoint", "is quantized, with a scale for each weight", _DECODE, _PLAIN, tensor=r"\.(?:weight|input)_(?:scale|zero_point)$"),
)
ADAPTERS = (
    Sign("adapter-alone", "an adapter of PEFT (LoRA)", "an adapter is what is added to a base model's weights", _ADAPTER, tensor=r"(?:^|\.)lora_(?:embedding_)?[AB](?:\.|$)|\.lora_magnitude_vector|(?:^|\.)ia3_l\.|^prompt_embeddings$"),
    Sign("adapter-alone", "an adapter of NeMo or Megatron (LoRA)", "an adapter is what is added to a base model's weights", _NEMO_ADAPTER, tensor=r"\.adapter_layer\.(?!mm_)|\.adapter\.(?:linear_(?:in|out)\.|adapter_[qkv]|adapter_(?:gate|up)\.)|(?:^|\.)prompt_encoder\."),
)
OTHERS = (
    Sign("other-names", "has the names of Meta's or Mistral's own releases (consolidated.*)", "they are read in HuggingFace's names", "take the repository in HuggingFace's names, or convert it with transformers' convert_llama_weights_to_hf.py or convert_mistral_weights_to_hf.py", tensor=r"^tok_embeddings\.weight$|^layers\.\d+\.attention\.w[qkvo]\.weight$"),
    Sign("other-model", "is an encoder with a decoder, such as T5", "ckptc has mappings of decoders alone", "write a mapping of its family and name it with --mapping", tensor=r"(?:^|\.)enc_dec_model\.|^encoder\.block\.\d+\.layer\."),
    Sign("other-model", "is an encoder, such as BERT", "ckptc has mappings of decoders alone", "write a mapping of its family and name it with --mapping", tensor=r"^(?:bert\.)?encoder\.layer\.\d+\.attention\.|(?:^|\.)bert_model\.|language_model\.pooler\.|^(?:model\.)?lm_head\.(?:dense|layernorm)\."),
)
# `quant_method` of a quantization_config, as transformers' QuantizationMethod has it, to what people call it.
METHODS = {
    "bitsandbytes": "bitsandbytes", "gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8 in blocks", "fbgemm_fp8": "FBGEMM's FP8", "mxfp4": "MXFP4", "modelopt": "NVIDIA's Model Optimizer",
    "compressed-tensors": "compressed-tensors", "hqq": "HQQ", "quanto": "Quanto", "torchao": "torchao", "aqlm": "AQLM", "eetq": "EETQ", "bitnet": "BitNet",
    "auto-round": "AutoRound", "intel/auto-round": "AutoRound", "spqr": "SpQR", "vptq": "VPTQ", "higgs": "HIGGS",
}  # fmt: skip
# What a class of NeMo's that a config names as its `target` is, by a part of its name in lower case.
TARGETS = {
    "t5": "an encoder with a decoder (T5)", "t0": "an encoder with a decoder (T0)", "bart": "an encoder with a decoder (BART)", "nmt": "a translation model",
    "bert": "an encoder (BERT)", "retro": "a retrieval model", "retrieval": "a retrieval model", "encdec": "a speech model", "asr": "a speech model", "tts": "a speech model",
    "ctc": "a speech model", "rnnt": "a speech model", "diffusion": "an image model", "clip": "an image and text model", "mamba": "a state space model", "griffin": "a recurrent model",
}  # fmt: skip
