"""torch_dist checkpoints that are written here are those that torch.distributed.checkpoint saves."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from ckptc.runtime.engine import engine
from ckptc.runtime.fault import Fault
from ckptc.runtime.plan.check_plan import check_plan
from ckptc.runtime.plan.plan_file import dump_plan, parse_plan

from ...archives import unpack
from .distributed_plans import OBJECT_KEYS, OBJECTS, bound_to, copying, family, model, stacked, with_objects
from .test_torch_layout import without_identity

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def read_metadata(folder: Path) -> Metadata:
    return dcp.FileSystemReader(folder).read_metadata()


def load(folder: Path) -> dict[str, torch.Tensor]:
    """Everything in the folder that is a tensor, read by torch."""
    held = read_metadata(folder).state_dict_metadata
    state = {k: torch.empty(v.size, dtype=v.properties.dtype) for k, v in held.items() if not isinstance(v, BytesStorageMetadata)}
    dcp.load(state, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    return state


def blobs(folder: Path) -> dict[tuple[str, tuple[int, ...] | None], bytes]:
    """The bytes of every item by name and offset; together they are all that the files hold."""
    found, ends = {}, {}
    for index, place in sorted(read_metadata(folder).storage_data.items(), key=lambda item: (item[1].relative_path, item[1].offset)):
        data = (folder / place.relative_path).read_bytes()
        assert place.offset == ends.get(place.relative_path, 0)
        ends[place.relative_path] = place.offset + place.length
        found[index.fqn, index.offset and tuple(index.offset)] = data[place.offset : place.offset + place.length]
    assert ends == {path.name: path.stat().st_size for path in folder.glob("*.distcp")}
    return found


def check_torchs_own(blob: bytes, value: object, folder: Path) -> None:
    """The blob is what torch.save makes of the value, but for the number that identifies the file."""
    ours, theirs = folder / "ours.pt", folder / "theirs.pt"
    ours.write_bytes(blob)
    saved = io.BytesIO()
    torch.save(value, saved)
    theirs.write_bytes(saved.getvalue())
    assert without_identity(ours) == without_identity(theirs)


@pytest.mark.parametrize(("only", "memory"), [(torch.bfloat16, 240), (None, 8 << 20)])
def test_torch_reads_every_tensor_back(tmp_path: Path, only: torch.dtype | None, memory: int) -> None:
    families, tensors = model(only)
    bound = bound_to(with_objects(copying(families, "torch_dist")), tensors, tmp_path)
    report = engine.run(bound, tmp_path / "out", memory=memory, workers=2)
    assert report.bytes_written == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    got, wanted = load(tmp_path / "out"), stacked(tensors)
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(got[name], tensor)
    objects: dict[str, object] = {key: io.BytesIO() for key in OBJECT_KEYS}
    dcp.load(objects, storage_reader=dcp.FileSystemReader(tmp_path / "out"), no_dist=True)
    assert objects == {key: [None] for key in OBJECT_KEYS}


def test_each_blob_is_torchs_own_byte_for_byte(tmp_path: Path) -> None:
    families, tensors = model()
    engine.run(bound_to(with_objects(copying(families, "torch_dist")), tensors, tmp_path, 1_000), tmp_path / "out")
    found = blobs(tmp_path / "out")
    for key in OBJECT_KEYS:
        check_torchs_own(found.pop((key, None)), [None], tmp_path)
    for i in range(4):
        check_torchs_own(found.pop(("layers.fc1.weight", (i, 0, 0))), tensors[f"layers[{i}].fc1.weight"][None].clone(), tmp_path)
        check_torchs_own(found.pop(("layers.fc1.norm", (i, 0))), tensors[f"layers[{i}].fc1.norm"][None].clone(), tmp_path)
        for j in range(3):
            part = tensors[f"layers[{i}].experts[{j}].fc1.weight"][None, None].clone()
            check_torchs_own(found.pop(("layers.experts.fc1.weight", (i, j, 0, 0))), part, tmp_path)
    check_torchs_own(found.pop(("embedding.weight", (0, 0))), tensors["embedding.weight"], tmp_path)
    check_torchs_own(found.pop(("final_norm.weight", (0,))), tensors["final_norm.weight"], tmp_path)
    assert not found


def test_every_dtype_and_a_scalar_are_described_and_stored_as_torch_does(tmp_path: Path, every_dtype, as_bytes) -> None:
    tensors = {**every_dtype, "scalar": torch.tensor(3.5)}
    families = [family(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
    engine.run(bound_to(copying(families, "torch_dist"), tensors, tmp_path), tmp_path / "out")
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(tmp_path / "theirs"), no_dist=True)
    assert read_metadata(tmp_path / "out").state_dict_metadata == read_metadata(tmp_path / "theirs").state_dict_metadata
    found = blobs(tmp_path / "out")
    for (name, _), blob in found.items():
        check_torchs_own(blob, tensors[name], tmp_path)
        assert as_bytes(torch.load(io.BytesIO(blob), weights_only=True)) == as_bytes(tensors[name])
    assert {name for name, _ in found} == tensors.keys()


def test_tensors_are_spread_over_files_of_limited_size(tmp_path: Path) -> None:
    families, tensors = model()
    engine.run(bound_to(with_objects(copying(families, "torch_dist")), tensors, tmp_path, 9_000), tmp_path / "out", workers=2)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.distcp"))
    assert files == sorted(f"__0_{i}.distcp" for i in range(len(files)))
    sizes = [(tmp_path / f"out/__0_{i}.distcp").stat().st_size for i in range(len(files))]
    assert len(sizes) > 3
    assert all(size <= 9_000 for size in sizes[1:])
    assert sizes[0] == 1261 * len(OBJECT_KEYS)
    got = load(tmp_path / "out")
    assert all(torch.equal(got[name], tensor) for name, tensor in stacked(tensors).items())


def test_what_stands_beside_says_the_format_and_the_common_state(tmp_path: Path) -> None:
    families, tensors = model()
    within = [replace(each, file="weights/") for each in families]
    engine.run(bound_to(copying(within, "torch_dist"), tensors, tmp_path), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights"]
    assert json.loads((tmp_path / "out/weights/metadata.json").read_text()) == {
        "sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1,
    }  # fmt: skip
    common = torch.load(tmp_path / "out/weights/common.pt", weights_only=True)
    assert common == {"checkpoint_version": 3.0, "iteration": 0}
    assert (tmp_path / "out/weights/__0_0.distcp").exists()
    assert torch.equal(load(tmp_path / "out/weights")["embedding.weight"], tensors["embedding.weight"])


def test_a_nemo_archive_holds_one(tmp_path: Path) -> None:
    families, tensors = model()
    within = [replace(each, file="model_weights/") for each in families]
    plan = replace(with_objects(copying(within, "torch_dist")), files=(("model_config.yaml", "a: 1\n"),))
    engine.run(bound_to(plan, tensors, tmp_path, 5_000), tmp_path / "net.nemo")
    out = unpack(tmp_path / "net.nemo", tmp_path / "out")
    assert (out / "model_config.yaml").read_text() == "a: 1\n"
    got = load(out / "model_weights")
    assert all(torch.equal(got[name], tensor) for name, tensor in stacked(tensors).items())
    with pytest.raises(Fault, match="not-an-archive"):
        engine.run(bound_to(copying(families, "torch_dist"), tensors, tmp_path), tmp_path / "other.nemo")


def test_stacks_that_are_not_whole_or_not_uniform_are_refused(tmp_path: Path) -> None:
    def refusal(shapes: dict[str, tuple[int, ...]], dtypes: dict[str, torch.dtype] | None = None) -> str:
        tensors = {name: torch.zeros(shape, dtype=(dtypes or {}).get(name)) for name, shape in shapes.items()}
        plan = copying([family(name, shape) for name, shape in shapes.items()], "torch_dist")
        with pytest.raises(Fault) as caught:
            bound_to(plan, tensors, tmp_path)
        return f"{caught.value} {caught.value.notes}"

    said = refusal({"l[0].w": (2, 3), "l[1].w": (2, 3), "l[3].w": (2, 3)})
    assert "incomplete-stack" in said
    assert "`l.w`" in said
    assert "index [2]" in said
    assert "index [1, 0]" in refusal({"l[0].e[0].w": (2,), "l[0].e[1].w": (2,), "l[1].e[1].w": (2,)})
    assert "uneven-stack" in refusal({"l[0].w": (2, 3), "l[1].w": (3, 2)})
    assert "l[1].w: float64" in refusal({"l[0].w": (2, 3), "l[1].w": (2, 3)}, {"l[1].w": torch.float64})
    assert "mixed-stack" in refusal({"l[0].e.w": (2,), "l.e[1].w": (2,)})
    assert "mixed-stack" in refusal({"l[0].w": (2,), "l.w": (2,)})
    assert "duplicate-tensor" in refusal({"l[0].w": (2,), "l[00].w": (2,)})


def test_one_folder_holds_all(tmp_path: Path) -> None:
    families = [family("a", (2,), folder="one/"), family("b", (3,), folder="two/")]
    with pytest.raises(Fault, match="all lie in one folder"):
        bound_to(copying(families, "torch_dist"), {"a": torch.zeros(2), "b": torch.zeros(3)}, tmp_path)


def test_objects_and_folders_live_in_plan_files() -> None:
    families, _ = model()
    plan = with_objects(copying([replace(each, file="weights/") for each in families], "torch_dist"))
    assert parse_plan(dump_plan(plan)) == plan
    check_plan(plan)
    hostile = [
        (("a[{layer}]", ()),), (("a[{layer.x}]", (("layer", 0, 2),)),), (("a[{layer}]", (("layer", 0, 0),)),), (("a[{layer}]", (("layer", -1, 2),)),),
        (("a[{layer}]", (("layer", 0, 10**5), ("expert", 0, 10**5))),),
    ]  # fmt: skip
    for objects in hostile:
        with pytest.raises(ValueError, match=r"spelled|numbers|objects"):
            check_plan(replace(plan, target=replace(plan.target, objects=objects)))
    for file in ("weights", "/", "../", "a//", "/a/"):
        with pytest.raises(ValueError, match=r"folder|within"):
            check_plan(copying([family("a", (2,), folder=file)], "torch_dist"))


def test_an_object_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    plan = copying([family("a", (2,))], "torch_dist")
    plan = replace(plan, target=replace(plan.target, objects=(*OBJECTS, OBJECTS[0])))
    with pytest.raises(Fault, match="duplicate-tensor"):
        bound_to(plan, {"a": torch.zeros(2)}, tmp_path)
