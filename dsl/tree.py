"""The syntax tree of a mapping file: plain frozen data, a span on every node.

Only `parse` makes these and only `format` turns them back into text; the compiler reads them.
Spans take no part in equality, so two trees are equal when they say the same thing.
"""

# ruff: noqa: RUF009 - every node ends in a span

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Span:
    """Where a node stands: 1-based line and column of its first and one past its last character."""

    file: str = "<text>"
    line: int = 0
    column: int = 0
    end_line: int = 0
    end_column: int = 0


NOWHERE = Span()


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False)


# --- scalar expressions: sizes, guards, config values -------------------------------------------


@dataclass(frozen=True)
class Literal:
    """A number, a string, true, false or null."""

    value: int | float | str | bool | None
    span: Span = _span()


@dataclass(frozen=True)
class Ref:
    """A name: an axis, a setting, a parameter or a choice."""

    name: str
    span: Span = _span()


@dataclass(frozen=True)
class Key:
    """`.rope_scaling.factor`: a key of the config file, by its path; a number is an item of a list, the first at 0."""

    path: tuple[str, ...]
    span: Span = _span()

    @property
    def dotted(self) -> str:
        """The path as messages say it."""
        return ".".join(self.path)


@dataclass(frozen=True)
class Unary:
    op: str  # "not" | "-"
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Binary:
    """`op` is one of: or and == != < <= > >= in ?? + - * / %"""

    op: str
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Call:
    """`gcd(a, b)`, `min`, `max`, `stored(tensor)`, ..."""

    function: str
    args: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Conditional:
    """`if test then yes else no`"""

    test: Expr
    yes: Expr
    no: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Pair:
    """One pair of a `match`: the subject's value, and what the whole is then."""

    value: Literal
    result: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Match:
    """`match(.hidden_act, "silu": "swiglu", "gelu": "geglu")`: the result of the pair that has the subject's value.

    Backwards, the first pair with the result gives the subject's value.
    """

    subject: Expr
    pairs: tuple[Pair, ...]
    span: Span = _span()


Expr: TypeAlias = Literal | Ref | Key | Unary | Binary | Call | Conditional | Match


# --- index expressions: one dimension of a stored tensor ----------------------------------------


@dataclass(frozen=True)
class AxisRef:
    """An axis, a part of a refined axis, or a `let` name."""

    name: str
    span: Span = _span()


@dataclass(frozen=True)
class One:
    """A dimension of extent one, written `1`."""

    span: Span = _span()


@dataclass(frozen=True)
class Term:
    """One summand: a product of factors, filled by tensor `label` if given (`q: share dim`)."""

    label: str | None
    factors: tuple[Index, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Sum:
    """`(x + y)`, and with a single term a parenthesised product `(x y)`."""

    terms: tuple[Term, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Slice:
    """`e/tp`: the contiguous block of `e` that belongs to this rank of `tp`."""

    operand: Index
    rank: str
    span: Span = _span()


FILLS = frozenset({"zero", "repeat last", "mean"})


@dataclass(frozen=True)
class Pad:
    """`pad(e, n)` rounds up to a multiple of n; `pad(e, to n)` up to exactly n. fill: one of
    `FILLS`, or the name of a parameter whose value is one."""

    operand: Index
    amount: Expr
    exact: bool = False
    fill: str = "zero"
    span: Span = _span()


@dataclass(frozen=True)
class Copies:
    """`copies(m)`: m equal copies along this position."""

    count: Expr
    span: Span = _span()


Index: TypeAlias = AxisRef | One | Sum | Slice | Pad | Copies


# --- names and file names -----------------------------------------------------------------------


@dataclass(frozen=True)
class Hole:
    """`{layer}`, `{layer/pp}`, `{layer + dense:03}` in a name: axis (or rank), local numbering, offset, digits."""

    axis: str
    rank: str | None = None
    offset: Expr | None = None
    width: int = 0
    span: Span = _span()


@dataclass(frozen=True)
class Pattern:
    """A name with holes; text and holes alternate as written. `{{` and `}}` are literal braces."""

    parts: tuple[str | Hole, ...]
    span: Span = _span()


# --- model --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AxisDecl:
    name: str
    span: Span = _span()


@dataclass(frozen=True)
class Setting:
    """`tie_embeddings = false`, or the size of a part of an axis.

    With `when`, it has this value wherever the condition does not hold, whatever a config says. A `hint` is for config
    files alone: it changes nothing that the model computes.
    """

    name: str
    value: Expr
    when: Expr | None = None
    hint: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Refine:
    """`axis share = (copy rest) with copy = kv_multiplier`: at most one part goes without a size.

    `pad(copy rest)`: the part without a size is rounded up; positions past the axis' end are padding.
    """

    axis: str
    parts: tuple[str, ...]
    sizes: tuple[Setting, ...]
    when: Expr | None = None
    padded: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Select:
    """`sparse[layer] = moe and layer >= dense_layers`: a setting that each index of an axis has, true or false.

    In `value` the axis' name stands for the index. A `when` that reads such a setting is for the indices where it holds.
    """

    name: str
    axis: str
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Require:
    """`require cond else "the fault", "what to do"`: the second text may be left out."""

    test: Expr
    message: str
    help: str = ""
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class TensorDecl:
    """`head [vocab, hidden] optional tied to embed after layer when tie_embeddings`.

    With `tied_to`, `when` says when the tie holds; else it says when the tensor exists. `before` and `after` name an axis:
    where pipeline stages divide it, the tensor is on the first or on the last. `where` is what of `when` is about single
    indices; `link` parts it from the rest.
    """

    name: str
    axes: tuple[AxisDecl, ...]
    optional: bool = False
    tied_to: str | None = None
    when: Expr | None = None
    before: str | None = None
    after: str | None = None
    where: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Part:
    """`part tower = clip optional before layer`: another model within this one. Its axes, settings and tensors get its name
    before theirs, as in `tower_layer`. `optional`, `before` and `after` are said of all its tensors, as of a tensor."""

    name: str
    model: str
    optional: bool = False
    before: str | None = None
    after: str | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Model:
    name: str
    extends: str | None
    axes: tuple[AxisDecl, ...]
    settings: tuple[Setting, ...]
    refinements: tuple[Refine, ...]
    requires: tuple[Require, ...]
    tensors: tuple[TensorDecl, ...]
    selects: tuple[Select, ...] = ()
    parts: tuple[Part, ...] = ()
    span: Span = _span()


# --- layout -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Param:
    """`tp = 1`, `rank tp = 1`, `hw = trn1 | trn2`: `choices` is empty unless written with bars.

    `form = stacked | indexed default if alike then stacked else indexed`: the default is not the first choice.

    `shared rank ep = 1`: tensors that this rank does not slice may stand on its rank 0 alone. `asked hw = trn1 | trn2`:
    where a source fits several of the choices and they make a difference, it must be said which.
    """

    name: str
    default: Expr
    rank: bool = False
    choices: tuple[str, ...] = ()
    shared: bool = False
    asked: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Sometimes:
    """`"mp_rank_{tp:02}" + ("_{pp:03}" when pp > 1) + "/model.pt"`: a name with parts that are there if their guard holds."""

    parts: tuple[tuple[Pattern, Expr | None], ...]
    span: Span = _span()


@dataclass(frozen=True)
class Files:
    """`files "model/rank_{tp:02}.pt" or "old"`: the file that a rank's tensors are in, relative to the checkpoint.

    Any of the names is read, the first is written.
    """

    names: tuple[Pattern | Sometimes, ...]
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Omit:
    """`omit (rope_freq)`: model tensors that this layout has no place for, and that are lost on purpose when written."""

    tensors: tuple[str, ...]
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Note:
    """`note "only the converter reads this" when order == blocks`: what is said when a checkpoint of this layout is written."""

    text: str
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Text:
    """`text "done" "1" when markers`: a small file with fixed content that is written beside the tensors."""

    file: str
    content: str
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Formats:
    """`format safetensors | bin`: containers this layout lives in, the default first. `read only`: it is not written."""

    names: tuple[str, ...]
    read_only: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Bind:
    """`hidden = .hidden_size`: the value of an axis, a setting or a parameter of the layout, written back as well.

    `reads`: `share <- .heads / group` is only read. Without a value (`ffn = none`) what is inherited is taken away.
    """

    name: str
    value: Expr | None
    reads: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Fixed:
    """`.architectures = ["LlamaForCausalLM"]`: a key that is written, and not read. A tuple is a list."""

    key: Key
    value: Expr | tuple[Expr, ...]
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Only:
    """`only .headscale is false else "a scale of each head"`: any other value changes what the model computes."""

    value: Expr
    values: tuple[Literal | tuple[Expr, ...], ...]
    effect: str = ""
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Unused:
    """`unused "use_cache" "fp8*"`: keys, by their dotted paths, that change nothing a model computes."""

    globs: tuple[str, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Identity:
    """`is .model_type "llama"`: which model a config is of. The first value is written."""

    key: Key
    values: tuple[Literal | tuple[Expr, ...], ...]
    span: Span = _span()


ConfigItem: TypeAlias = Bind | Fixed | Only | Unused | Identity


@dataclass(frozen=True)
class Config:
    """`config "config.json" { hidden = .hidden_size ... }`, read from and written back to that file.

    Without a file's name (""), it adds to the one that is inherited. `read only`: a checkpoint of this layout has no such
    file; one that is at hand can be read. `partial`: the framework knows more of the model than this file says.
    """

    file: str
    items: tuple[ConfigItem, ...]
    template: str | None = None
    read_only: bool = False
    partial: bool = False
    span: Span = _span()

    @property
    def entries(self) -> tuple[Bind, ...]:
        """The values that it binds, in order."""
        return tuple(x for x in self.items if isinstance(x, Bind))


@dataclass(frozen=True)
class Carry:
    """`carry "tokenizer*"`: side files copied byte for byte between checkpoints of this layout."""

    globs: tuple[str, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Stages:
    """`stages layer over pp interleave vpp remainder last beyond n`: which pipeline stage owns which index of `axis`.

    The last `beyond` indices are not divided: the last stage has them besides its own.
    """

    axis: str
    rank: str
    interleave: str | None = None
    remainder: str | None = None  # None: must divide | "first" | "last"
    beyond: str | None = None
    span: Span = _span()


@dataclass(frozen=True)
class State:
    """`state "optim/dp_{dp:02}_tp_{tp:02}.pt" over dp`: the optimizer's state for each parameter, shaped and placed as
    the parameter, is cut along its first dimension into a block per rank, in files of this name."""

    file: Pattern
    rank: str
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Let:
    name: str
    value: Index
    when: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Rename:
    """`q: q_bias` in a rule's `with`: the label `q` of a `let` means the tensor `q_bias` here."""

    label: str
    tensor: str
    span: Span = _span()


@dataclass(frozen=True)
class Elementwise:
    """`+ 1`, `- 1`, `* s`: stored = model (op) amount, applied left to right."""

    op: str
    amount: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Rule:
    """`"name" or "old" = tensor [dims] modifiers`. `copy` in front: a further copy, written but not read.

    With a bar, `"fc1" = up [ffn | hidden]`, it stands for two: `fc1.weight` with all dims, and `fc1.bias` of `up_bias`
    with those before the bar. `where` is what of `when` is about single indices; `link` parts it from the rest.
    """

    names: tuple[Pattern, ...]
    tensor: str | None
    dims: tuple[Index, ...]
    renames: tuple[Rename, ...] = ()
    elementwise: tuple[Elementwise, ...] = ()
    dtype: str | None = None  # f32 f16 bf16 f64 ...
    on: str | None = None  # "first" | "last" | "beyond" | "all"
    optional: bool = False
    copy: bool = False
    when: Expr | None = None
    where: Expr | None = None
    made: Call | None = None  # how its elements are calculated where the source has none
    view: tuple[Index, ...] = ()  # the stored tensor's shape, where it is another than that of its elements' order
    bar: int | None = None  # how many dims stand before it
    span: Span = _span()


@dataclass(frozen=True)
class Ignore:
    """Stored tensors that are dropped on purpose when this layout is read.

    `empty`: an `object`, which is no tensor; formats that keep such things are given it without content.
    """

    names: tuple[Pattern, ...]
    when: Expr | None = None
    where: Expr | None = None
    empty: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Prefix:
    """One prefix of an `under`, and when it is the one. With a `name`, it begins with the named prefix of that name."""

    text: Pattern
    when: Expr | None = None
    name: str | None = None
    span: Span = _span()


@dataclass(frozen=True)
class NamedPrefix:
    """`prefix block = top + "layers.{layer}."`: a name for what names begin with. What extends the layout may say another."""

    name: str
    prefixes: tuple[Prefix, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Under:
    """`under "model.layers.{layer}." { ... }`: a common prefix of the names inside, and a common guard.

    Of several, `under "a." when old, "b." { ... }`, the first whose guard holds is the prefix, for each index.
    """

    prefixes: tuple[Prefix, ...]
    items: tuple[LayoutItem, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Choices:
    """`let a = x when c, y`: one statement of several choices, each a node of its own. The first whose guard holds applies."""

    items: tuple[Files, ...] | tuple[Let, ...] | tuple[Rule, ...]
    span: Span = _span()


@dataclass(frozen=True)
class PartLayout:
    """`part tower as hf under "vision_tower." keys .vision_config`: the layout that a part of the model has within this one,
    the prefix of its names, and the key under which its config's keys stand."""

    name: str
    layout: str
    prefixes: tuple[Prefix, ...] = ()
    keys: tuple[str, ...] = ()
    span: Span = _span()


LayoutItem: TypeAlias = (
    Choices | NamedPrefix | PartLayout | Files | Text | Omit | Note | Formats | Config | Carry | Stages | State | Refine | Let | Require | Rule | Ignore | Under
)


@dataclass(frozen=True)
class Base:
    """A layout that another extends, and the prefix under which its names stand there, or do where `when` holds.

    `keys .text_config`: the key under which all that its config reads and writes stands there.
    """

    name: str
    under: Pattern | None = None
    when: Expr | None = None
    keys: tuple[str, ...] = ()
    span: Span = _span()


@dataclass(frozen=True)
class Layout:
    name: str
    model: str
    extends: tuple[Base, ...]
    params: tuple[Param, ...]
    items: tuple[LayoutItem, ...]
    base: bool = False  # only there to be extended
    span: Span = _span()


@dataclass(frozen=True)
class Use:
    """`use "decoder.ckmap"`: the file's models and layouts are visible here."""

    file: str
    span: Span = _span()


@dataclass(frozen=True)
class Mapping:
    """One file. Uses, models and layouts each keep their own order; the formatter prints them in that sequence."""

    uses: tuple[Use, ...]
    models: tuple[Model, ...]
    layouts: tuple[Layout, ...]
    span: Span = _span()
