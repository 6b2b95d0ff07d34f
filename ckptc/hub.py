"""SRC in: a path, or a repository of the hub. A path out, or the opened checkpoint; what goes wrong is one `Fault`.

Only huggingface_hub talks to the hub, so its cache, token and environment variables are what they are elsewhere.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .runtime.checkpoint.checkpoint import Checkpoint, open_checkpoint
from .runtime.fault import Fault, MissingFile
from .runtime.formats.nemo.training_run import rank_files
from .runtime.path_names import did_you_mean, refuse_remote_source
from .runtime.situations.situations import refuse_names

SCHEME = "hf://"
CONFIG = "config.json"
# The first that a repository has is fetched, with the shards that it lists; all others are its twins.
WEIGHTS = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
# The hub's own rule for ORG/NAME.
_ID = re.compile(r"(?!.*(?:--|\.\.|\.git$))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class HubId:
    """A repository at a revision. `plain`: without `hf://`, so that it may be a path with a typo."""

    repo: str
    revision: str | None
    plain: bool

    def __str__(self) -> str:
        return f"`{self.repo}` (revision {self.revision or 'main'})"


def open_source(src: str | Path, revision: str | None = None, progress: bool = True) -> Checkpoint:
    """The checkpoint at a path, or in a repository of the hub; of a path, headers only are read."""
    return open_checkpoint(find_source(src, revision, progress))


def find_source(src: str | Path, revision: str | None = None, progress: bool = True) -> str:
    """The path that SRC is, or the folder in the hub's cache that holds the files of the repository that SRC names."""
    hub_id = read_id(src, revision)
    return os.fspath(src) if hub_id is None else _fetch(hub_id, progress)


def repository(src: str | Path | Checkpoint, revision: str | None = None) -> str:
    """ORG/NAME that SRC names on the hub; empty where it is none."""
    hub_id = None if isinstance(src, Checkpoint) else read_id(src, revision)
    return hub_id.repo if hub_id is not None else ""


def read_id(src: str | Path, revision: str | None = None) -> HubId | None:
    """The repository that SRC names, or None where it is a path. What exists is a path, and so is a `Path`.

    Raises `Fault` for another URL than `hf://`.
    """
    text = str(src)
    if isinstance(src, str) and text.startswith(SCHEME):
        repo, at, inner = text.removeprefix(SCHEME).partition("@")
        if not _ID.fullmatch(repo) or (at and not inner):
            help = "write hf://ORG/NAME or hf://ORG/NAME@REVISION"
            raise Fault("bad-hub-id", f"`{text}` does not name a repository", help=help)
        if at and revision not in (None, inner):
            raise Fault("two-revisions", f"`{text}` and revision `{revision}` disagree", help="give one of them")
        return HubId(repo, inner or revision, plain=False)
    if isinstance(src, str) and _ID.fullmatch(text) and not os.path.lexists(text) and not rank_files(*os.path.split(text)):
        return HubId(text, revision, plain=True)
    if not os.path.lexists(text):
        refuse_remote_source(text)
    if revision is not None:
        title = f"`{text}` is a path, and a path has no revision `{revision}`"
        raise Fault("no-revision", title, help="leave the revision out, or name a repository as hf://ORG/NAME")
    return None


def _fetch(hub_id: HubId, progress: bool) -> str:
    """The snapshot's folder in the cache, with the files that a conversion needs."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        """No bars for these calls, without turning them off for the whole process."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call, unused-ignore]

    def fetch(revision: str | None, *globs: str, ignored: str | None = None) -> Path:
        bars = None if progress else Silent
        try:
            folder = snapshot_download(
                hub_id.repo, revision=revision, allow_patterns=list(globs), ignore_patterns=ignored, tqdm_class=bars
            )
        except Exception as error:
            raise explain(hub_id, error) from None
        return Path(folder)

    folder = fetch(hub_id.revision, CONFIG, *_carried(), ignored="*/*")
    commit = folder.name  # what follows is of the same commit, even if the branch moves on meanwhile
    try:
        names = {file.rfilename for file in HfApi().model_info(hub_id.repo, revision=commit).siblings or ()}
    except Exception as error:  # like above: a hub that is not reached is no fault while the cache has all
        weights = _weights(os.listdir(folder))
        if weights is None or not all((folder / shard).exists() for shard in _shards(folder / weights)):
            raise explain(hub_id, error) from None
        return str(folder)
    weights = _weights(names)
    if weights is None:
        refuse_names(str(hub_id), sorted(names))
        looked = f"looked for: {', '.join(WEIGHTS)}"
        raise Fault("no-checkpoint", f"{hub_id} holds no weights that are known here", notes=(looked,))
    fetch(commit, weights)
    if shards := _shards(folder / weights):
        fetch(commit, *map(glob.escape, shards))
    return str(folder)


def _weights(names: Container[str]) -> str | None:
    return next((name for name in WEIGHTS if name in names), None)


def _carried() -> list[str]:
    """The side files that any layout takes along."""
    from .library.mapping_files import families

    carried = (item for family in families(None) for layout in family.layouts for item in layout.carry)
    return sorted({pattern for item in carried for pattern in item.globs})


def _shards(weights: Path) -> tuple[str, ...]:
    """The files that an index lists; none if it is no index. One that cannot be read is refused when it is opened."""
    if weights.suffix != ".json":
        return ()
    try:
        files = json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values()
        return tuple(sorted({file for file in files if isinstance(file, str)}))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ()


def explain(hub_id: HubId, error: Exception) -> Fault:
    """What huggingface_hub raised, as one sentence and what to do about it."""
    from huggingface_hub import errors

    causes = list(_causes(error))

    def caused(kind: type[Exception]) -> Any:
        return next((e for e in causes if isinstance(e, kind)), None)

    if caused(errors.GatedRepoError):
        help = "accept its licence on its page, and set HF_TOKEN to a token that may read it"
        return Fault("hub-gated", f"{hub_id} is gated", help=help)
    if caused(errors.RepositoryNotFoundError):
        neither = "neither a path nor a repository on the hub" if hub_id.plain else "no repository on the hub"
        near = did_you_mean(hub_id.repo) if hub_id.plain else ""
        help = near or "check the name; if the repository is private, set HF_TOKEN to a token that may read it"
        return Fault("hub-not-found", f"there is {neither} that is called `{hub_id.repo}`", help=help)
    if caused(errors.RevisionNotFoundError):
        title = f"`{hub_id.repo}` has no revision `{hub_id.revision or 'main'}`"
        return Fault("hub-revision", title, help="name a branch, a tag or a commit of it with --revision")
    if caused(errors.OfflineModeIsEnabled):
        title = f"{hub_id} is not in the cache, or not all of it, and HF_HUB_OFFLINE is set"
        return _path_first(hub_id, Fault("hub-offline", title, help="unset HF_HUB_OFFLINE where there is a network"))
    if any(getattr(e, "errno", None) in _NO_ROOM or "No space left" in str(e) for e in causes):
        title = f"the disk has no room left to fetch {hub_id}"
        return Fault("hub-no-room", title, help="make room, or set HF_HOME to a folder on another disk")
    answer = caused(errors.HfHubHTTPError)
    notes = (f"there is no path `{hub_id.repo}` here",) if hub_id.plain else ()
    if answer is not None and answer.response.status_code in (401, 403):
        title = f"the hub refuses to give {hub_id} (HTTP {answer.response.status_code})"
        return Fault("hub-refused", title, notes=notes, help="set HF_TOKEN to a token that may read it")
    if answer is not None:
        title = f"the hub answered HTTP {answer.response.status_code} when asked for {hub_id}"
        return Fault("hub-failed", title, notes=notes, help="try again later")
    cause = next((e for e in causes if not isinstance(e, errors.LocalEntryNotFoundError)), error)
    if getattr(cause, "filename", None):
        title = f"{hub_id} cannot be kept in the cache: {cause}"
        return Fault("hub-cache", title, help="set HF_HOME to a folder that may be written")
    reason = (str(cause).splitlines() or [""])[0] or type(cause).__name__
    title = f"{hub_id} cannot be fetched, and the cache does not have all of it: {reason}"
    return _path_first(hub_id, Fault("hub-unreachable", title, help="check the network, the proxy settings and HF_ENDPOINT"))


def _path_first(hub_id: HubId, fault: Fault) -> Fault:
    """A name without `hf://` may be a path with a typo: that it is not there is said first."""
    if not hub_id.plain:
        return fault
    title = f"there is no path `{hub_id.repo}`, and as a repository of the hub it could not be read"
    return MissingFile(fault.code, title, notes=(fault.title,), help=did_you_mean(hub_id.repo) or f"check the path, or {fault.help}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
