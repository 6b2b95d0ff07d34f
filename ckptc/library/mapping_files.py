"""Mapping files on disk: the ones that ship with ckptc, and those that a user names. Only here are they read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from ..compiler.link.flat import Family
from ..compiler.link.link import link
from ..dsl.diagnostic import Diagnostic, Label, MappingError
from ..dsl.nearest import nearest
from ..dsl.tree import Config, Mapping, Span
from ..runtime.inside import why_outside
from ..runtime.path_names import did_you_mean
from . import kept, shipped
from .packing import pack, unpack
from .shipped import NODES

SHIPPED = (Path(__file__).resolve().parent.parent / "mappings").resolve()


def shipped_names() -> list[str]:
    """The names of the mapping files that come with ckptc, such as `llama`."""
    return sorted(p.stem for p in SHIPPED.glob("*.ckmap"))


def mapping_path(name: str | Path) -> Path:
    """A file of the user's, or one that ships with ckptc, by its name without `.ckmap`."""
    path = Path(name)
    if path.suffix == ".ckmap":
        if not path.exists():
            raise MappingError(Diagnostic("no-mapping", f"there is no file {path}", help=did_you_mean(path) or "see `ckptc list` for the mappings that ship with ckptc"))
        return path
    shipped = SHIPPED / f"{name}.ckmap"
    if shipped.exists():
        return shipped
    near = nearest(str(name), shipped_names())
    raise MappingError(
        Diagnostic(
            "no-mapping", f"no mapping is called `{name}`", notes=(f"there are {', '.join(shipped_names())}, or name a .ckmap file",),
            help=f"did you mean `{near}`?" if near else "see `ckptc list`",
        )
    )  # fmt: skip


def files_in(names: Iterable[str]) -> list[str]:
    """The names, and in the place of each folder the mapping files in it. Raises `MappingError` for a folder without any."""
    out: list[str] = []
    for name in names:
        if not Path(name).is_dir() or (SHIPPED / f"{name}.ckmap").exists():
            out.append(name)
            continue
        held = sorted(str(p) for p in Path(name).glob("*.ckmap"))
        if not held:
            raise MappingError(Diagnostic("no-mapping", f"the folder {name} holds no .ckmap file", help="name a mapping file, or a folder of them"))
        out += held
    return out


def display_name(path: Path) -> str:
    """How a mapping file is called in messages: shipped ones from the project's root, others from the working directory."""
    if path.parent == SHIPPED or (whole := path.resolve()).parent == SHIPPED:
        return f"mappings/{path.name}"
    here = Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)


@lru_cache(maxsize=64)
def _parsed(path: Path, stamp: int, name: str) -> Mapping:
    text = path.read_text(encoding="utf-8")
    key = kept.key_of(text, name)
    if parts := kept.recall(name, key):
        try:
            found = unpack(parts[0].data(), NODES)
        except ValueError:
            found = None  # damaged: parsed again
        if isinstance(found, Mapping):
            return found
    from ..dsl.parsing.parse import parse

    mapping = parse(text, name)
    kept.keep(name, key, [pack(mapping, NODES)])
    return mapping


def read_mapping(path: Path) -> Mapping:
    try:
        return _parsed(path, path.stat().st_mtime_ns, display_name(path))
    except UnicodeDecodeError:
        raise MappingError(Diagnostic("not-text", f"{path} is not UTF-8 text", help="mapping files are UTF-8")) from None
    except OSError as e:
        raise MappingError(Diagnostic("unreadable-mapping", f"{path}: {e.strerror}")) from None


def load(names: Iterable[str | Path], bases: bool = False) -> tuple[Family, ...]:
    """The families of these mapping files and of all files that they use; with `bases` also what is only there to be extended."""
    found = _closure([mapping_path(n) for n in names])
    return _linked(tuple((path, path.stat().st_mtime_ns, display_name(path)) for path in found), bases)


@lru_cache(maxsize=16)
def _linked(files: tuple[tuple[Path, int, str], ...], bases: bool = False) -> tuple[Family, ...]:
    return link([_parsed(*file) for file in files], bases)


@lru_cache(maxsize=4)
def _shipped(files: tuple[tuple[Path, int, int], ...]) -> tuple[Family, ...]:
    texts = [path.read_text(encoding="utf-8", errors="replace") for path, _, _ in files]
    return shipped.families(texts, lambda: load([path.stem for path, _, _ in files]))


def _closure(paths: list[Path]) -> dict[Path, Mapping]:
    found: dict[Path, Mapping] = {}
    queue = list(paths)
    while queue:
        path = queue.pop(0).resolve()
        if path in found:
            continue
        mapping = read_mapping(path)
        found[path] = mapping
        for use in mapping.uses:
            _refuse_elsewhere(use.file, path, use.span, "use")
            beside, shipped = path.parent / use.file, SHIPPED / use.file
            target = beside if beside.exists() else shipped
            if not target.exists():
                raise MappingError(
                    Diagnostic(
                        "no-mapping", f"there is no file {use.file} beside {display_name(path)}", (Label(use.span, "used here"),),
                        help="`use` takes a path relative to this file, or a mapping that ships with ckptc",
                    )
                )  # fmt: skip
            queue.append(target)
    return found


def _refuse_elsewhere(name: str, mapping: Path, span: Span, word: str) -> None:
    """A mapping reads what is beside it or below: it may be another's, and what it reads may be written or shown."""
    why = why_outside(name)
    if not why and not (mapping.parent / name).resolve().is_relative_to(mapping.parent.resolve()):
        why = "it is a link that leads elsewhere"
    if why:
        raise MappingError(
            Diagnostic(
                "outside-mapping", f"`{name}` is not a file beside the mapping or below it: {why}", (Label(span, "named here"),),
                help=f"`{word}` takes a path relative to this file, or the name of a file that ships with ckptc",
            )
        )  # fmt: skip


def used_by(path: Path) -> tuple[Mapping, ...]:
    """The mapping files that this one uses, directly or not."""
    return tuple(mapping for each, mapping in _closure([path]).items() if each != path.resolve())


def template_path(block: Config) -> Path | None:
    """Where the template of a config block is: beside the mapping file that names it, else among those that ship."""
    if block.template is None:
        return None
    mapping = file_of(block.span.file)
    _refuse_elsewhere(block.template, mapping, block.span, "template")
    beside, shipped = mapping.parent / block.template, SHIPPED / block.template
    path = beside if beside.is_file() else shipped
    if not path.is_file():
        from difflib import get_close_matches

        names = [p.name for folder in {mapping.parent, SHIPPED} for p in folder.glob("*.j2")]
        (near,) = get_close_matches(block.template, names, 1, 0.85) or ("",)
        raise MappingError(
            Diagnostic(
                "no-template", f"there is no template {block.template} beside {block.span.file}", (Label(block.span, "named here"),),
                help=f"did you mean `{near}`?" if near else "`template` takes a path relative to this file, or a template that ships with ckptc",
            )
        )  # fmt: skip
    return path


def read_template(block: Config) -> str | None:
    """The text of a config block's template."""
    path = template_path(block)
    try:
        return path.read_text(encoding="utf-8") if path is not None else None
    except UnicodeDecodeError:
        raise MappingError(Diagnostic("not-text", f"{path} is not UTF-8 text", (Label(block.span, "named here"),), help="templates are UTF-8")) from None


def check_templates(mapping: Mapping) -> Iterator[Diagnostic]:
    """Faults about the templates that a mapping file names."""
    for item in (item for layout in mapping.layouts for item in layout.items if isinstance(item, Config)):
        try:
            read_template(item)
        except MappingError as error:
            yield from error.diagnostics


def file_of(name: str) -> Path:
    """The mapping file that messages call so: the inverse of `display_name`."""
    return SHIPPED / Path(name).name if name.startswith("mappings/") and not Path(name).exists() else Path(name)


def sources(diagnostics: Iterable[Diagnostic]) -> dict[str, str]:
    """The texts that diagnostics point into, for rendering."""
    texts: dict[str, str] = {}
    for diagnostic in diagnostics:
        for label in diagnostic.labels:
            name = label.span.file
            path = file_of(name)
            if name not in texts and path.exists():
                texts[name] = path.read_text(encoding="utf-8", errors="replace")
    return texts


def families(mapping: str | Path | None) -> tuple[Family, ...]:
    """The families to choose from: those of one mapping file, those that its layouts are for if it has no model, or all that ship."""
    if mapping is None:
        return _shipped(tuple((path, (found := path.stat()).st_mtime_ns, found.st_size) for path in sorted(SHIPPED.glob("*.ckmap"))))
    path = mapping_path(mapping)
    own = {m.name for m in read_mapping(path).models}
    file = display_name(path)
    return tuple(f for f in load([path]) if (f.name in own if own else any(x.span.file == file for x in f.layouts)))
