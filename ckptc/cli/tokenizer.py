"""`ckptc tokenizer`: what is done to a tokenizer beside a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import options

NO_TOKENS = "it needs one token or more; write --tokens=-x for a token -x"

app = typer.Typer(name="tokenizer", help="Change a tokenizer.", rich_markup_mode=None)


class ManyTokens(TyperCommand):
    """A command whose --tokens takes all the words up to the next option, as the scripts' own does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _repeat(args))


def _repeat(arguments: list[str]) -> list[str]:
    """`--tokens a b` as `--tokens a --tokens b`, which the parser of options knows."""
    out: list[str] = []
    taking = False
    for word, following in zip(arguments, [*arguments[1:], None], strict=True):
        if _is_option(word):
            taking = word == "--tokens"
            if taking and (following is None or _is_option(following)):
                raise typer.BadParameter(NO_TOKENS, param_hint="--tokens")
            out += [] if taking else [word]
        else:
            out += ["--tokens", word] if taking else [word]
    return out


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


@app.callback()
def tokenizer() -> None:
    """Change a tokenizer."""


@app.command("add-special-tokens", cls=ManyTokens)
def add_special_tokens(
    input_file: Annotated[
        Path,
        typer.Option("--input-file", metavar="IN", help="A SentencePiece model, tokenizer.model.", show_default=False),
    ],
    output_file: Annotated[
        Path, typer.Option("--output-file", metavar="OUT", help="Where to write.", show_default=False)
    ],
    tokens: Annotated[
        list[str],
        typer.Option(
            "--tokens", metavar="TOKEN [TOKEN...]", help="What to add, in the order of ids.", show_default=False
        ),
    ],
    userdefined: Annotated[
        bool,
        typer.Option(
            "--userdefined",
            "--is-userdefined",
            help="Tokens that are found in text and kept whole. Without it they only have ids (control tokens).",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    as_json: options.Json = False,
) -> None:
    """Add tokens to a SentencePiece model."""
    from ..runtime.tokenizer.sentencepiece_model import add_special_tokens, shown

    numbered = add_special_tokens(input_file, output_file, tokens, userdefined, overwrite=overwrite)
    size = numbered[-1][1] + 1
    if as_json:
        kind = "user-defined" if userdefined else "control"
        added = [{"token": token, "id": number, "kind": kind} for token, number in numbered]
        said = {"source": str(input_file), "destination": str(output_file), "tokens": added, "vocab_size": size}
        print(json.dumps(said, indent=2))
        return
    for token, number in numbered:
        print(f"{shown(token)}  {number}")
    print(f"New tokenizer vocab size: {size}")


@app.command("to-hf")
def to_hf(
    src: Annotated[str, typer.Argument(metavar="SRC", help="A .nemo archive, a SentencePiece model, or a folder with one.", show_default=False)],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write to.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace tokenizer.model in DST if it is there.")] = False,
    as_json: options.Json = False,
) -> None:
    """Write a SentencePiece model as HuggingFace's tokenizer."""
    from ..nemo.hf_tokenizer import write_tokenizer

    files = write_tokenizer(src, str(dst), overwrite)
    print(json.dumps({"source": src, "destination": str(dst), "files": list(files)}, indent=2) if as_json else f"{dst}: {', '.join(files)}")
