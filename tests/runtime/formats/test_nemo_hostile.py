"""Hostile, damaged and cut archives give one fault that names the archive, and nothing is written or read outside of them."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.nemo.tar_members import read_members

from .nemo_files import contents, pack, saved


def become(kind: bytes, **facts: object):
    def change(info: tarfile.TarInfo) -> None:
        if info.name.endswith("odd"):
            info.type = kind
            vars_ = {"size": 0, **facts}
            for name, value in vars_.items():
                setattr(info, name, value)

    return change


KINDS = {
    "a hard link": become(tarfile.LNKTYPE, linkname="./model_config.yaml"),
    "a symbolic link": become(tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a device": become(tarfile.CHRTYPE),
    "a pipe": become(tarfile.FIFOTYPE),
    "a sparse file": become(tarfile.GNUTYPE_SPARSE),
    "of type 'V'": become(b"V"),
}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("what", KINDS)
def test_members_that_are_no_plain_files_are_refused(what, format, tmp_path):
    path = pack(tmp_path / "x.nemo", {"odd": b"", **contents()}, change=KINDS[what], format=format)
    with pytest.raises(Fault, match=r"bad-archive.*x\.nemo") as fault:
        open_checkpoint(path)
    assert f"`odd`, which is {what}" in fault.value.title


def test_sparse_members_of_pax_are_refused(tmp_path):
    def change(info: tarfile.TarInfo) -> None:
        if info.name.endswith("odd"):
            info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "odd"}

    with pytest.raises(Fault, match="a sparse file"):
        open_checkpoint(pack(tmp_path / "x.nemo", {"odd": b"", **contents()}, change=change))


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a/..", "a\\..\\x", "//x"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_lead_out_are_refused(name, format, tmp_path):
    def change(info: tarfile.TarInfo) -> None:
        info.name = name if info.name == "./odd" else info.name
        info.pax_headers = {"path": name} if info.name == name and format == tarfile.PAX_FORMAT else {}

    with pytest.raises(Fault, match=r"bad-archive.*x\.nemo") as fault:
        open_checkpoint(pack(tmp_path / "x.nemo", {**contents(), "odd": b""}, change=change, format=format))
    assert repr(name) in fault.value.title


@pytest.mark.parametrize("twin", ["./model_config.yaml", "model_config.yaml", "././model_config.yaml"])
def test_a_member_that_occurs_twice_is_refused(twin, tmp_path):
    def change(info: tarfile.TarInfo) -> None:
        info.name = twin if info.name == "./odd" else info.name

    with pytest.raises(Fault, match=r"holds `model_config\.yaml` twice"):
        open_checkpoint(pack(tmp_path / "x.nemo", {**contents(), "odd": b"other: 1\n"}, change=change))


def test_archives_cut_at_every_interesting_place(tmp_path):
    members = contents(("mp_rank_00", "mp_rank_01"))
    long = "n" * 120
    whole = pack(tmp_path / "x.nemo", {**members, long: b"last"}, format=tarfile.PAX_FORMAT).read_bytes()
    found = read_members(str(tmp_path / "x.nemo"))
    places = {0, 1, 511, 512, 513}
    for member in found.values():
        end = -(-(member.at + member.nbytes) // 512) * 512
        places |= {member.at - 513, member.at - 512, member.at - 1, member.at, member.at + 1, member.at + member.nbytes - 1, end - 1, end}
        places |= {end + 1, end + 511}
    last = max(-(-(m.at + m.nbytes) // 512) * 512 for m in found.values())
    for place in sorted(p for p in places if 0 <= p < last + 512):
        (tmp_path / "cut.nemo").write_bytes(whole[:place])
        with pytest.raises(Fault, match=r"(truncated-file|bad-archive).*cut\.nemo"):
            open_checkpoint(tmp_path / "cut.nemo")
    (tmp_path / "cut.nemo").write_bytes(whole[: last + 512])  # all members are there, and an end
    assert len(open_checkpoint(tmp_path / "cut.nemo")) == 4


@pytest.mark.parametrize("after", [b"x" + bytes(511), bytes(2 << 20)])
def test_something_after_the_end_is_refused(after, tmp_path):
    path = pack(tmp_path / "x.nemo", contents())
    path.write_bytes(path.read_bytes() + after)
    with pytest.raises(Fault, match="goes on after its end"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "truncated-file.*ends at byte 0"), (b"PK\3\4" + bytes(600), "bad-archive.*no tar archive"), (b"\0" * 10240, "no-checkpoint.*holds no"), (b"text\n" * 300, "bad-archive.*no tar archive")],
    ids=["nothing", "a zip", "zeros", "text"],
)
def test_files_that_are_no_archives(data, words, tmp_path):
    (tmp_path / "x.nemo").write_bytes(data)
    with pytest.raises(Fault, match=words):
        open_checkpoint(tmp_path / "x.nemo")


def test_an_inner_file_stays_within_its_member(tmp_path):
    """Each way in which a directory may point beyond its member, into bytes that the archive does have."""
    inner = saved(w=torch.arange(15.0))
    for cut in (1, 22, 60, 200, len(inner) // 2):
        members = {"model_weights.ckpt": inner[:-cut], "padding": bytes(4096)}
        with pytest.raises(Fault, match=r"(bad-torch-zip|truncated-file).*model_weights\.ckpt"):
            open_checkpoint(pack(tmp_path / "x.nemo", members))
    end = inner.rindex(b"PK\5\6")
    for size, at in ((0xFFFF, 0), (46, len(inner)), (46, 0xFFFFFF00)):
        lying = inner[: end + 12] + size.to_bytes(4, "little") + at.to_bytes(4, "little") + inner[end + 20 :]
        if b"PK\6\7" in lying:
            lying = lying.replace(b"PK\6\7", b"PK\6\6")
        with pytest.raises(Fault, match=r"bad-torch-zip.*model_weights\.ckpt"):
            open_checkpoint(pack(tmp_path / "x.nemo", {"model_weights.ckpt": lying, "z": inner * 40}))
    assert len(open_checkpoint(pack(tmp_path / "x.nemo", {"a": bytes(700), "model_weights.ckpt": inner, "z": inner}))) == 1


def test_headers_that_lie(tmp_path):
    whole = pack(tmp_path / "x.nemo", contents(), format=tarfile.PAX_FORMAT).read_bytes()

    def broken(header: bytes) -> bytes:
        raw = bytearray(header)
        raw[148:156] = b" " * 8
        return bytes(raw[:148]) + f"{sum(raw):06o}\0 ".encode() + bytes(raw[156:])

    negative = broken(whole[:124] + b"-0000000001\0" + whole[136:512])
    huge = broken(whole[:124] + b"\x80" + b"\xff" * 11 + whole[136:512])
    pax = io.BytesIO()
    with tarfile.open(fileobj=pax, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * 2000}
        archive.addfile(info)
    record = pax.getvalue()
    bad_record = record[:512] + b"99999 " + record[518:]
    long_header = broken(record[:124] + b"77777777777\0" + record[136:512]) + record[512:]
    lies = {
        "bad-archive.*no tar archive": b"\1" + whole[1:], "bad-archive.*a size that is no number": negative + whole[512:], "truncated-file.*within `": huge + whole[512:],
        "bad-archive.*a damaged PAX header": bad_record, "bad-archive.*8,589,934,591 bytes in the header": long_header, "truncated-file.*within a header": record[:3072],
    }  # fmt: skip
    for words, data in lies.items():
        (tmp_path / "x.nemo").write_bytes(data)
        with pytest.raises(Fault, match=words):
            open_checkpoint(tmp_path / "x.nemo")


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_changed_bytes_give_members_or_a_fault(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    whole = bytearray(pack(folder / "x.nemo", contents(("mp_rank_00",)), format=data.draw(st.sampled_from([0, 1, 2]))).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder / "x.nemo").write_bytes(whole)
    with suppress(Fault):
        opened = open_checkpoint(folder / "x.nemo")
        assert all(0 <= t.entry.window.at < len(whole) for t in opened)
