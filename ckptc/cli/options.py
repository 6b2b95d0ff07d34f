"""What is typed after options: degrees, settings, stages, sizes. Texts in, values out, or a usage error.

The annotated types are shared by the commands that take the same options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..choices.typed_text import Text

Source = Annotated[
    str,
    typer.Argument(metavar="SRC", help="What to read: a folder, a file, or ORG/NAME on the hub.", show_default=False),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="REV", help="The branch, tag or commit to read, if SRC is on the hub."),
]
Destination = Annotated[Path, typer.Argument(metavar="DST", help="Where to write.", show_default=False)]
To = Annotated[
    str,
    typer.Option("--to", metavar="LAYOUT", help="The layout to write; `ckptc list` has them all.", show_default=False),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="LAYOUT", help="The layout to read (default: found from the files).")
]
FromNamed = Annotated[str, typer.Option("--from", metavar="LAYOUT", help="The layout to read.", show_default=False)]
Family = Annotated[
    str | None,
    typer.Option("--family", metavar="NAME", help="The model family (default: found from files and config)."),
]
Config = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="The model's config (default: the one in the checkpoint)."),
]
Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="KEY", help="Go on although this config key or setting cannot be carried over (repeatable)."),
]
Format = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="The container to write, where a layout has several.")
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", metavar="DTYPE", help="Cast floating tensors: bfloat16, float16, float32, ...")
]
ModelId = Annotated[
    str | None,
    typer.Option("--model-id", metavar="ID", help="The model for NeMo 2, by its id or its family (default: the family)."),
]
Tokenizer = Annotated[
    str | None,
    typer.Option("--tokenizer", metavar="PATH", help="The tokenizer for NeMo 2, a file or a folder (default: the source's)."),
]
Tp = Annotated[
    int | None,
    typer.Option(
        "--tp",
        "--tensor-parallel-size",
        "--tensor-model-parallel-size",
        metavar="N",
        min=1,
        help="Tensor parallel degree.",
    ),
]
Pp = Annotated[
    int | None,
    typer.Option(
        "--pp",
        "--pipeline-parallel-size",
        "--pipeline-model-parallel-size",
        metavar="N",
        min=1,
        help="Pipeline parallel degree.",
    ),
]
Vpp = Annotated[
    int | None,
    typer.Option(
        "--vpp", "--virtual-pp-size", metavar="N", min=1, help="Virtual stages (model chunks) per pipeline stage."
    ),
]
Dp = Annotated[
    int | None,
    typer.Option("--dp", metavar="N", min=1, help="Data parallel degree of optimizer state (default: the source's)."),
]
Ep = Annotated[
    int | None, typer.Option("--ep", "--expert-parallel-size", metavar="N", min=1, help="Expert parallel degree.")
]
Etp = Annotated[
    int | None,
    typer.Option("--etp", "--expert-tensor-parallel-size", metavar="N", min=1, help="Tensor parallel degree of each expert (default: that of the rest)."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the target (`ckptc list LAYOUT`), or of the model. May be repeated."),
]
FromSet = Annotated[
    list[str] | None,
    typer.Option("--from-set", metavar="KEY=VALUE", help="A parameter of the source. May be repeated."),
]
Stages = Annotated[
    str | None,
    typer.Option(
        "--stages",
        metavar="STAGES",
        help="Layers of each stage: 0-6,7-13 or [[0,1],[2,3]]; how many, 7,7; or Megatron's layout, Et*6|t*8,L (default: the layout's own rule).",
    ),
]
FromStages = Annotated[
    str | None,
    typer.Option("--from-stages", metavar="STAGES", help="The same of the source (default: found from its files)."),
]
Memory = Annotated[str, typer.Option("--memory", metavar="SIZE", help="The most buffer memory to use.")]
Workers = Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Worker threads.")]
MaxShardSize = Annotated[
    str, typer.Option("--max-shard-size", metavar="SIZE", help="The most bytes of one shard, where files are sharded.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace DST if it exists.")]
Merge = Annotated[bool, typer.Option("--merge", help="Write into DST beside what is there.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what an ended run with --resume has left, or begin one that can be resumed.")
]
Manifest = Annotated[
    bool, typer.Option("--manifest", help="Write ckptc-manifest.json: checksums of all files and tensors.")
]
CompareCopies = Annotated[
    bool,
    typer.Option(
        "--compare-copies/--no-compare-copies", help="Compare the source's declared copies before anything is written."
    ),
]
Progress = Annotated[bool, typer.Option("--progress/--no-progress", help="Show progress on standard error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print a machine-readable report on standard output.")]

DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "fp32": "float32",
    "f32": "float32",
    "fp64": "float64",
    "f64": "float64",
}


def settings(pairs: list[str] | None, option: str, **degrees: int | None) -> dict[str, Any]:
    """`key=value` texts, and the degrees that were given, as one dictionary. A name may stand only once.

    The texts are read when it is known what they are for.
    """
    found: dict[str, Any] = {name: degree for name, degree in degrees.items() if degree is not None}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise typer.BadParameter(f"`{pair}` is not of the form key=value", param_hint=option)
        if name in found:
            raise typer.BadParameter(f"`{name}` is given twice", param_hint=option)
        found[name] = Text(text.strip())
    return found


def dtype(text: str | None) -> str | None:
    if text is None:
        return None
    name = text.lower().removeprefix("torch.")
    return DTYPES.get(name, name)


def stages(text: str | None, option: str = "--stages") -> Any:
    """What is said of stages, as the Python face takes it: lists of layers, or another of the forms of `stage_text`."""
    if text is None:
        return None
    from ..choices.stage_text import FORMS, parse_stages

    try:
        return parse_stages(text)
    except (ValueError, TypeError, RecursionError) as problem:
        own = type(problem) is ValueError and str(problem).startswith("`")
        raise typer.BadParameter(str(problem) if own else f"`{text}` is neither of the form {FORMS}", param_hint=option) from None
