"""HuggingFace's files: `find` knows one file, shards and an index; `safetensors` and `bin` are the formats;
`safetensors_read` and `safetensors_write` the header of a safetensors file.
"""
