"""A plan and files in, files out. `files` is the contract: a reader says where bytes are (`Window`), a writer says
what a file looks like around them (`FileLayout`). `formats` implements it for each container; `checkpoint` opens
one; `plan` is what the compiler made; `binding` finds each of its windows and lays out each target file; `engine`
moves the bytes, with the copies of `kernels`. `tokenizer` changes SentencePiece models. `emitted` is what an
emitted module imports.
"""
