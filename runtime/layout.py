"""Target tensors to target files: which file each goes to, where in it, and what surrounds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .families import Family, further_copies
from .fault import Fault
from .hf_files import hf_shards, index_json, shard_names
from .megatron_file import QKV_ORDERS, rank_file
from .plan import Side
from .stacked import DISTRIBUTED
from .target import FileLayout, lay_out_safetensors, lay_out_torch_zip
from .torch_dist_write import lay_out_torch_dist
from .torch_pickle_write import Slot
from .tree import fill
from .window import ITEM_BYTES, SideFile
from .xser import lay_out_tensor, reference_files, tensor_file, whole_file
from .zarr_write import lay_out_zarr


@dataclass(frozen=True)
class TargetFile:
    """A file to write; `targets` are the global numbers of the tensors in its regions. It begins at byte `at`: of an
    archive called `name`, where it is a member of one."""

    name: str
    layout: FileLayout
    targets: tuple[int, ...]
    at: int = 0


@dataclass(frozen=True)
class Put:
    """Bytes that are known beforehand, or stand in another file, and go to `file` from byte `at`."""

    file: str
    at: int
    content: bytes | SideFile

    @property
    def nbytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.nbytes


def lay_out(
    side: Side,
    targets: tuple[Family, ...],
    names: list[list[str]],
    dtypes: list[str],
    order: list[int],
    max_shard_bytes: int,
    trees: Mapping[str, Any],
) -> tuple[tuple[TargetFile, ...], list[tuple[int, int]], tuple[tuple[str, bytes], ...]]:
    """All files, the (file, region) of every target, and the texts that belong to them.

    The file is -1 for a copy that the format leaves out. `trees` are what files hold around their tensors, by file.
    """
    owner = [number for number, family in enumerate(targets) for _ in range(len(family.rows))]
    flat = [name for group in names for name in group]
    places = [
        place
        for family in targets
        for place in (family.spell(family.stored.file) if family.stored.file else [""] * len(family.rows))
    ]
    if side.format in DISTRIBUTED:
        tensors = [(name, dtype, targets[k].stored.shape) for name, dtype, k in zip(flat, dtypes, owner, strict=True)]
        return _distributed(side, tensors, places, order, max_shard_bytes)
    groups: dict[str, list[int]] = {}
    for i in order:
        groups.setdefault(places[i], []).append(i)
    texts: list[tuple[str, bytes]] = []
    loose = groups.pop("", None)
    if loose is not None:
        sizes = [targets[owner[i]].elements * ITEM_BYTES[dtypes[i]] for i in loose]
        shards = [list(range(len(loose)))] if side.format == "nemo" else hf_shards(sizes, max_shard_bytes)
        weights: dict[str, str] = {}
        for shard, name in zip(shards, shard_names(side.format, len(shards)), strict=True):
            groups[name] = [loose[k] for k in shard]
            weights.update((flat[i], name) for i in groups[name])
        if len(shards) > 1:
            texts.append(index_json(side.format, weights, sum(sizes)))
    files: list[TargetFile] = []
    spots = [(-1, 0)] * len(flat)
    texts += [(name, whole_file(tree, name.rsplit("/", 1)[-1])) for name, tree in trees.items() if name not in groups]
    if side.format in ("megatron", "nemo", "pt"):
        texts += [(name, whole_file(_rank_file(side, []) if side.format == "megatron" else {}, name.rsplit("/", 1)[-1])) for name in side.bare]
    if side.format == "xser":
        copies = [copy for family in targets for copy in further_copies(family)]
        by_experts = [alone for family in targets for alone in [_cut_by_shared(side, family)] * len(family.rows)]
        for name, members in groups.items():
            if all(copies[i] for i in members):
                raise Fault(
                    "empty-rank", f"`{name}` would only reference tensors of another rank's folder, and no reader could tell that it is there",
                    help="write it with --format pt",
                )  # fmt: skip
            described = [(flat[i], dtypes[i], targets[owner[i]].stored.shape) for i in members]
            texts += reference_files(name, [(*d, by_experts[i]) for d, i in zip(described, members, strict=True)], trees.get(name))
            for tid, (i, tensor) in enumerate(zip(members, described, strict=True)):
                if not copies[i]:
                    spots[i] = (len(files), 0)
                    files.append(TargetFile(tensor_file(name, tid), lay_out_tensor(*tensor, tid), (i,)))
        return tuple(files), spots, tuple(texts)
    for number, (name, members) in enumerate(groups.items()):
        tensors = [(flat[i], dtypes[i], targets[owner[i]].stored.shape) for i in members]
        if side.format == "safetensors":
            layout = lay_out_safetensors(tensors)
        else:
            slots = {each[0]: Slot(str(i), each[1], each[2]) for i, each in enumerate(tensors)}
            tree = _rank_file(side, [each[0] for each in tensors]) if side.format == "megatron" else trees.get(name)
            value = fill(tree, slots) if tree is not None else None
            layout = lay_out_torch_zip(tensors, name.rsplit("/", 1)[-1].split(".")[0], value)
        files.append(TargetFile(name, layout, tuple(members)))
        for region, i in enumerate(members):
            spots[i] = (number, region)
    return tuple(files), spots, tuple(texts)


def _rank_file(side: Side, names: list[str]) -> Any:
    """What a rank file of Megatron-LM has around these tensors. How query, key and value are ordered is its version."""
    order = str(dict(side.params).get("qkv_order", "groups"))
    turns = dict(side.params).get("vpp", 1)
    return rank_file(names, [pattern for pattern, _ in side.objects], QKV_ORDERS.get(order, QKV_ORDERS["groups"]), turns if isinstance(turns, int) else 1)


def _distributed(
    side: Side, tensors: list[tuple[str, str, tuple[int, ...]]], places: list[str], order: list[int], max_shard_bytes: int
) -> tuple[tuple[TargetFile, ...], list[tuple[int, int]], tuple[tuple[str, bytes], ...]]:
    folders = sorted(set(places)) or [""]
    if len(folders) > 1 or (folders[0] and not folders[0].endswith("/")):
        raise Fault(
            "bad-files", f"layout `{side.layout}` is written to {side.format} files, which all lie in one folder",
            notes=tuple(folders[:5]), help='give the layout one folder, as in: files "weights/"',
        )  # fmt: skip
    ordered = [tensors[i] for i in order]
    if side.format == "zarr":
        laid_out, texts = lay_out_zarr(folders[0], ordered, side.objects)
    else:
        laid_out, texts = lay_out_torch_dist(folders[0], ordered, side.objects, max_shard_bytes)
    files = tuple(TargetFile(name, layout, tuple(order[k] for k in members)) for name, layout, members in laid_out)
    spots = [(-1, 0)] * len(tensors)
    for number, file in enumerate(files):
        for region, i in enumerate(file.targets):
            spots[i] = (number, region)
    return files, spots, tuple(texts)


def _cut_by_shared(side: Side, family: Family) -> bool:
    """Whether ranks that share what they do not cut, cut this: each then has a part of its own."""
    sharing = {rank for stored in side.stored for rank in stored.shared}
    degrees = dict(side.ranks)
    return not family.stored.shared and any(degrees[rank] > 1 for rank in sharing)
