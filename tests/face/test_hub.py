"""Reading from the hub, against a stand-in that is served here; nothing leaves this machine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ckptc import hub
from ckptc.demo import write_llama
from ckptc.runtime.fault import Fault
from tests.face.hub_stand_in import StandIn, serve
from tests.held import files_of

TWINS = (
    "README.md", "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "tf_model.h5",
    "consolidated.safetensors", "model-q4.gguf", "original/x.pth", "original/tokenizer.model", "onnx/model.onnx",
)  # fmt: skip
TO = ("--to", "nxdt", "--tp", 2)
CONVERT = (*TO, "--no-progress")


@pytest.fixture
def stand_in(made_llama: Path, tmp_path: Path) -> Iterator[StandIn]:
    """`org/name`: the demo's checkpoint among files that no conversion needs; and others that are refused."""
    folder = tmp_path / "served"
    shutil.copytree(made_llama, folder)
    (folder / "tokenizer_config.json").write_text("{}")
    for name in TWINS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")
    with serve() as hub:
        hub.folders = {("org/name", "main"): folder, ("org/gated", "main"): folder}
        hub.refusals = {
            "org/gated": (403, {"X-Error-Code": "GatedRepo"}),
            "org/private": (401, {"X-Error-Code": "RepoNotFound"}),
            "org/refused": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
            "org/forbidden": (403, {}),
            "org/down": (503, {}),
        }
        yield hub


@pytest.fixture
def shell(stand_in: StandIn, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one command line in a process of its own: huggingface_hub reads its environment when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}

    def run(*arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
        environment = {**kept, "HF_ENDPOINT": stand_in.url, "HF_HOME": str(tmp_path / "hf-home"), **extra}
        command = [sys.executable, *map(str, arguments if arguments[0] == "-c" else ("-m", "ckptc", *arguments))]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return run


def test_a_repository_is_converted_as_its_local_copy_is_and_only_what_is_needed_is_fetched(stand_in, shell, tmp_path):
    done = shell("convert", "org/name", "out", *CONVERT)
    assert (done.returncode, done.stderr) == (0, "")
    assert stand_in.files() == set(files_of(tmp_path / "served")) - set(TWINS)
    assert sum(path.endswith("/revision/main") for path in stand_in.asked) == 1
    assert stand_in.tokens == {None}
    assert shell("convert", "served", "local", *CONVERT).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "local")


def test_the_documented_command_with_a_name_of_the_hub_runs(stand_in, shell, tmp_path):
    """Llama-2's: --qkv_linear False, which the script takes for true, and --save_xser True, which it does not do."""
    arguments = (
        "--model_style hf --hw_backend trn1 --hf_model_name org/name --output_dir OUT --save_xser True --config served/config.json "
        "--tp_size 2 --pp_size 2 --n_layers 5 --kv_size_multiplier 1 --qkv_linear False --convert_from_full_state"
    )
    done = shell("compat", "checkpoint_converter.py", *arguments.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("ckptc convert hf://org/name OUT --from hf --to nxdt --tp 2 --pp 2")
    native = ("--to", "nxdt", "--tp", 2, "--pp", 2, "--set", "qkv=split", "--format", "xser")
    assert shell("convert", "served", "local", *native).returncode == 0
    assert files_of(tmp_path / "OUT") == files_of(tmp_path / "local")
    assert stand_in.files() == set(files_of(tmp_path / "served")) - set(TWINS)


def test_side_files_come_along(stand_in, shell, tmp_path):
    assert shell("convert", "org/name", "out", "--to", "hf").returncode == 0
    assert (tmp_path / "out/tokenizer_config.json").read_text() == "{}"


def test_a_second_run_needs_the_cache_alone(stand_in, shell):
    assert shell("convert", "org/name", "out", *CONVERT).returncode == 0
    stand_in.asked.clear()
    done = shell("convert", "hf://org/name", "again", *CONVERT, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell("inspect", "org/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, done.stderr) == (0, "")
    assert stand_in.asked == []


@pytest.mark.parametrize(
    "arguments", [("hf://org/name@v1",), ("hf://org/name", "--revision", "v1"), ("org/name", "--revision=v1")]
)
def test_a_revision_is_named_in_either_way(arguments, stand_in, shell, tmp_path):
    write_llama(tmp_path / "first", seed=1)
    stand_in.folders["org/name", "v1"] = tmp_path / "first"
    name, *options = arguments
    given = ("llama", "--from", "hf", "--config", "first/config.json")
    assert shell("compile", *given, *TO, "-o", "plan.ckplan").returncode == 0
    done = shell("run", "plan.ckplan", name, "out", "--no-progress", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert shell("convert", "first", "local", *CONVERT).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "local")


def test_two_places_are_compared_wherever_they_are_and_no_progress_is_shown_unasked(stand_in, shell):
    stand_in.folders["org/name", "v1"] = stand_in.folders["org/name", "main"]
    for command in (("verify", "org/name", "hf://org/name@v1"), ("verify", "hf://org/name", "served", "--revision=v1"), ("diff", "hf://org/name@v1", "org/name")):
        done = shell(*command, "--json")
        assert (done.returncode, done.stderr) == (0, ""), command
        assert json.loads(done.stdout)["same"]


def test_the_token_is_sent(stand_in, shell):
    assert shell("inspect", "org/name", HF_TOKEN="hf_secret").returncode == 0
    assert stand_in.tokens == {"Bearer hf_secret"}


def test_the_python_face_fetches_once(stand_in, shell):
    script = """
import ckptc
plan = ckptc.plan("org/name", to="nxdt", tp=2)
plan.totals("org/name")
plan.run("out", source="org/name")
"""
    done = shell("-c", script)
    assert done.returncode == 0, done.stderr
    assert sum(path.endswith("/revision/main") for path in stand_in.asked) == 1
    script = "import ckptc; print(len(ckptc.open('org/name', 'main')), ckptc.inspect('hf://org/name@main')['tensors'])"
    assert shell("-c", script).stdout == "48 48\n"


def test_bars_are_shown_unless_they_are_not_wanted(stand_in, shell):
    for number, option in enumerate(("--quiet", "--no-progress", "--json")):
        done = shell("convert", "org/name", f"out{number}", *TO, option, HF_HOME=f"home{number}")
        assert (done.returncode, done.stderr) == (0, "")
    assert "Fetching" in shell("inspect", "org/name").stderr
    assert "Fetching" not in shell("inspect", "org/name", "--json").stderr


def test_a_local_folder_of_the_same_name_wins(stand_in, shell, tmp_path, made_llama):
    shutil.copytree(made_llama, tmp_path / "org/name")
    assert shell("convert", "org/name", "out", *CONVERT).returncode == 0
    assert stand_in.asked == []
    done = shell("inspect", "org/name", "--revision", "v1")
    assert done.returncode == 1
    assert done.stderr.startswith("error[no-revision]: `org/name` is a path, and a path has no revision `v1`\n")


def test_without_safetensors_the_bin_files_are_fetched(stand_in, shell, tmp_path, made_llama):
    folder = tmp_path / "bin"
    as_bin = ("--to", "hf", "--format", "bin", "--max-shard-size", "300kB")
    assert shell("convert", made_llama, folder, *as_bin).returncode == 0
    (folder / "training_args.bin").touch()
    stand_in.folders["org/bin", "main"] = folder
    assert shell("convert", "org/bin", "out", *CONVERT).returncode == 0
    assert stand_in.files() == set(files_of(folder)) - {"training_args.bin"}
    assert len([name for name in stand_in.files() if name.endswith(".bin")]) > 1
    assert shell("convert", folder, "local", *CONVERT).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "local")


def test_a_single_file_of_weights_needs_no_index(stand_in, shell, tmp_path):
    (tmp_path / "small").mkdir()
    torch.save({"x": torch.zeros(3)}, tmp_path / "small/pytorch_model.bin")
    stand_in.folders["org/small", "main"] = tmp_path / "small"
    done = shell("inspect", "org/small", "--json")
    assert json.loads(done.stdout)["tensors"] == 1
    assert json.loads(done.stdout)["path"] == "org/small"
    assert stand_in.files() == {"pytorch_model.bin"}


NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("arguments", "extra", "sentence", "advice"),
    [
        ("org/gated", {}, "[hub-gated]: `org/gated` (revision main) is gated", "accept its licence on its page"),
        ("org/none", {}, "[hub-not-found]: there is neither a path nor a repository", "check the name"),
        ("hf://org/private", {}, "[hub-not-found]: there is no repository", "set HF_TOKEN"),
        ("org/refused", {"HF_TOKEN": "hf_bad"}, "[hub-refused]: the hub refuses to give `org/refused`", "set HF_TOKEN"),
        ("org/forbidden", {}, "[hub-refused]: the hub refuses to give `org/forbidden`", "set HF_TOKEN"),
        ("org/down", {}, "[hub-failed]: the hub answered HTTP 503 when asked for `org/down`", "try again later"),
        ("org/name --revision v9", {}, "[hub-revision]: `org/name` has no revision `v9`", "with --revision"),
        ("hf://org/name@v9", {"HF_HUB_OFFLINE": "1"}, "[hub-offline]: `org/name` (revision v9) is", "unset HF_HUB_OFF"),
        ("org/name", NOWHERE, "[hub-unreachable]: there is no path `org/name`, and", "check the path, or check the network"),
        ("org/name", {"HF_HOME": "/dev/null"}, "[hub-cache]: `org/name` (revision main) cannot be kept", "set HF_HOME"),
        ("org/empty", {}, "[no-checkpoint]: `org/empty` (revision main) holds no weights", "looked for: model.saf"),
        ("hf://name", {}, "[bad-hub-id]: `hf://name` does not name a repository", "hf://ORG/NAME"),
        ("hf://a/b@v1 --revision v2", {}, "[two-revisions]: `hf://a/b@v1` and revision `v2` disagree", "give one"),
        ("../name", {}, "[no-checkpoint]: `../name` does not exist", ""),
        ("name", {}, "[no-checkpoint]: `name` does not exist", ""),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_nothing_is_written(
    arguments, extra, sentence, advice, stand_in, shell, tmp_path
):
    (tmp_path / "empty/original").mkdir(parents=True)
    (tmp_path / "empty/config.json").write_text("{}")
    (tmp_path / "empty/original/x.pth").touch()
    stand_in.folders["org/empty", "main"] = tmp_path / "empty"
    name, *options = arguments.split()
    done = shell("convert", name, "out", *CONVERT, *options, **extra)
    first, *more = done.stderr.splitlines()
    assert done.returncode == 1
    assert first.startswith(f"error{sentence}")
    assert all(line.startswith(("  = note: ", "  = help: ")) for line in more)
    assert advice in " ".join(more)
    assert not (tmp_path / "out").exists()


def test_offline_a_cache_with_only_some_of_the_files_is_said_to_be_incomplete(stand_in, shell, tmp_path):
    assert shell("inspect", "org/name").returncode == 0
    for name in ("model-00002-of-00003.safetensors", "config.json"):
        next((tmp_path / "hf-home").rglob(name)).unlink()
        done = shell("inspect", "org/name", HF_HUB_OFFLINE="1")
        assert done.returncode == 1
        assert "`org/name` (revision main) is not in the cache, or not all of it" in done.stderr


def test_a_full_disk_is_said_to_be_full(monkeypatch, ckptc, tmp_path):
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    done = ckptc("convert", "org/name", "out", *CONVERT)
    assert done.code == 1
    assert done.err.startswith("error[hub-no-room]: the disk has no room left to fetch `org/name` (revision main)\n")


@pytest.mark.parametrize(
    "text", ["a/b/c", "/a/b", "./b", "a", "a/b/", "a--b/c", "a/b..c", "a/b.git", "a/é", "a b/c", "a/.b", ""]
)
def test_what_is_not_of_the_form_of_an_id_is_a_path(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert hub.read_id(text) is None
    with pytest.raises(Fault, match="bad-hub-id"):
        hub.read_id(f"hf://{text}")


def test_what_is_of_the_form_of_an_id_names_a_repository_unless_it_is_a_path_object(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert hub.read_id("meta-llama/Llama-3.1_8B") == hub.HubId("meta-llama/Llama-3.1_8B", None, plain=True)
    assert hub.read_id("hf://a/b@refs/pr/1") == hub.HubId("a/b", "refs/pr/1", plain=False)
    assert hub.read_id(Path("a/b")) is None
