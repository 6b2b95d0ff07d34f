"""Paths that a person named, in; why they are no local paths, and what was probably meant, out."""

from __future__ import annotations

import os
import re

from .fault import Fault

# A scheme has two letters or more: one is a drive. `Path` makes one slash of two.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_UPLOAD = {
    "s3": "aws s3 cp --recursive", "gs": "gcloud storage cp -r", "gcs": "gcloud storage cp -r",
    "az": "azcopy copy --recursive", "abfs": "azcopy copy --recursive", "abfss": "azcopy copy --recursive",
    "wasb": "azcopy copy --recursive", "wasbs": "azcopy copy --recursive", "hdfs": "hdfs dfs -put",
}  # fmt: skip
_HUB_PAGE = re.compile(r"(?:www\.)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)/?.*")


def scheme_of(path: str | os.PathLike[str]) -> str:
    """The scheme of a URL, such as `s3`; "" of a local path."""
    url = _URL.match(os.fspath(path))
    return url[1].lower() if url is not None else ""


def refuse_remote_target(path: str | os.PathLike[str]) -> None:
    """Raises `Fault` for a destination that is a URL: files are written to local paths."""
    scheme, rest = scheme_of(path), _rest(path)
    if not scheme:
        return
    if scheme == "file":
        help = f"write to /{rest.lstrip('/')}"
    elif scheme == "hf":
        help = f"write to a local folder, then: hf upload {rest} FOLDER"
    elif scheme in _UPLOAD:
        help = f"write to a local folder, then: {_UPLOAD[scheme]} FOLDER {scheme}://{rest}"
    else:
        help = "write to a local folder, and upload it from there"
    raise Fault("remote-path", f"{scheme}://{rest} is a URL, and ckptc writes to local paths", notes=(_local(path),), help=help)


def refuse_remote_source(path: str | os.PathLike[str]) -> None:
    """Raises `Fault` for a source that is a URL, such as `s3://bucket/folder`. `hf://` is dealt with before."""
    scheme, rest = scheme_of(path), _rest(path)
    if not scheme:
        return
    page = _HUB_PAGE.fullmatch(rest) if scheme in ("http", "https") else None
    if scheme == "file":
        help = f"name the path: /{rest.lstrip('/')}"
    elif page is not None:
        help = f"name the repository: hf://{page[1]}"
    elif scheme in _UPLOAD and scheme != "hdfs":
        help = f"download it first: {_UPLOAD[scheme]} {scheme}://{rest} FOLDER"
    else:
        help = "download it first, and name the local path"
    raise Fault("remote-path", f"{scheme}://{rest} is a URL, and ckptc reads local paths and the Hugging Face Hub", notes=(_local(path),), help=help)


def _rest(path: str | os.PathLike[str]) -> str:
    url = _URL.match(os.fspath(path))
    return url[2] if url is not None else ""


def _local(path: str | os.PathLike[str]) -> str:
    return f"a local path that is called so is ./{os.fspath(path)}"


def near_path(path: str | os.PathLike[str]) -> str | None:
    """A path that exists and differs from `path` in one name only slightly, if there is one."""
    whole = os.fspath(path).rstrip(os.sep)
    parent, name = os.path.split(whole)
    missing = [name]
    while parent and not os.path.isdir(parent):
        parent, name = os.path.split(parent)
        if not name:
            return None
        missing.insert(0, name)
    try:
        names = sorted(each for each in os.listdir(parent or ".") if not each.startswith("."))
    except OSError:
        return None
    from difflib import get_close_matches

    for near in get_close_matches(missing[0], names, 3, 0.75):
        found = os.path.join(parent, near, *missing[1:])
        if os.path.exists(found):
            return found
    return None


def did_you_mean(path: str | os.PathLike[str]) -> str:
    """A help line with the path that was probably meant, or ""."""
    near = near_path(path)
    return f"did you mean `{near}`?" if near is not None else ""
