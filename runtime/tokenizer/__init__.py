"""A SentencePiece model in, the same with further pieces out: `protobuf` finds the fields, `sentencepiece_model`
changes them.
"""
