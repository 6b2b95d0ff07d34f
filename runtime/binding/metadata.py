"""What the source's files say of themselves beside their tensors, by file, in; what the target's files say out."""

from __future__ import annotations

from collections.abc import Mapping

Metadata = Mapping[str, Mapping[str, str]]
OURS = "format"  # says for which framework a safetensors file was written: what is written here is always for torch


def merged(metadata: Metadata) -> dict[str, str]:
    """One set of texts for all files that are written: where files disagree, the first one's."""
    found: dict[str, str] = {}
    for file in sorted(metadata):
        for key, text in metadata[file].items():
            if key != OURS:
                found.setdefault(key, text)
    return found


def notes(metadata: Metadata, path: str, kept: bool) -> tuple[str, ...]:
    """What is to be said of them: which are not `kept`, as where the target's format has no place for them, and which disagree."""
    found = merged(metadata)
    if not kept:
        names = ", ".join(f"`{key}`" for key in list(found)[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
        return (f"the metadata of {path} is not carried over, for the files written have no place for it: {names}",) if found else ()
    said = []
    for key, text in found.items():
        other = next((file for file in sorted(metadata) if metadata[file].get(key, text) != text), None)
        if other is not None:
            first = next(file for file in sorted(metadata) if key in metadata[file])
            said.append(f"the metadata `{key}` of {path} is {_short(text)} in {first} and {_short(metadata[other][key])} in {other}: the first is kept")
    return tuple(said)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
