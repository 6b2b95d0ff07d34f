"""Hostile texts: configs in JSON and YAML, plan files, mapping files; and tokenizer files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ckptc

from .doors import CANARY, Case, Make, config, llama, mapping, nemo_config, saved_plan, tokenizer


def file(name: str, content: str | bytes) -> Make:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (path := folder / name, path.write_bytes(data))[0]


def settings(**changed: Any) -> Make:
    return lambda folder: file("config.json", json.dumps({**json.loads((llama() / "config.json").read_text()), **changed}))(folder)


_JSON = {
    "empty": file("config.json", ""), "no text": file("config.json", b"\xff\xfe\x00"), "nested deep": file("config.json", '{"a":' * 100_000), "lists nested deep": file("config.json", "[" * 200_000), "a list": file("config.json", "[]"), "a number of a million digits": file("config.json", '{"hidden_size": ' + "9" * 1_000_000 + "}"),
    "no layers": settings(num_hidden_layers=0), "negative layers": settings(num_hidden_layers=-3), "10**15 layers": settings(num_hidden_layers=10**15), "10**40 layers": settings(num_hidden_layers=10**40), "layers of text": settings(num_hidden_layers="x" * 100), "layers that are a list": settings(num_hidden_layers=[1] * 1000), "layers that are an object": settings(num_hidden_layers={"a": 1}),
    "half a layer": settings(num_hidden_layers=2.5), "infinite layers": settings(num_hidden_layers=float("inf")), "layers that are no number": settings(num_hidden_layers=float("nan")), "a hidden size beyond": settings(hidden_size=1 << 62), "no heads": settings(num_attention_heads=0), "heads that do not divide": settings(num_attention_heads=7, num_key_value_heads=3, head_dim=None), "a vocabulary of a quadrillion": settings(vocab_size=10**15), "a billion layers": settings(num_hidden_layers=10**9),
    "a model type that is a list": settings(model_type=["llama"]), "an architecture of megabytes": settings(architectures=["x" * 3_000_000], model_type="x"), "an activation that is an object": settings(hidden_act={"a": []}),
}  # fmt: skip
@cache
def sound_yaml() -> str:
    """A config of NeMo 1 that can be read."""
    ckptc.plan(llama(), to="nemo").run(llama().parent / "sound-nemo")
    return (llama().parent / "sound-nemo/model_config.yaml").read_text()


def yaml(before: str = "", **changed: str) -> Make:
    """A sound config behind this text, with other values."""

    def make(folder: Path) -> Path:
        lines = [f"{key}: {changed[key]}" if (key := line.partition(":")[0]) in changed else line for line in sound_yaml().splitlines()]
        return file("model_config.yaml", before + "\n".join(lines) + "\n")(folder)

    return make


_LAUGH = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
_DOUBLE = "a0: xx\n" + "".join(f"a{i}: ${{a{i - 1}}}${{a{i - 1}}}\n" for i in range(1, 60))
_YAML: dict[str, Make] = {
    "python/object/apply": yaml(hidden_size=f"!!python/object/apply:os.system ['touch {CANARY}']"), "python/object/new": yaml(hidden_size=f"!!python/object/new:os.system ['touch {CANARY}']"), "python/name": yaml(hidden_size="!!python/name:os.system"), "python/module": yaml(hidden_size="!!python/module:os"), "python/tuple": yaml(hidden_size="!!python/tuple [1]"), "an unknown tag": yaml(hidden_size="!evil {}"),
    "a laugh of a billion": yaml(_LAUGH), "a laugh beside an interpolation": yaml(_LAUGH, ffn_hidden_size="${hidden_size}"), "an anchor in itself": yaml("x: &a [*a]\n", hidden_size="*a"), "an anchor in itself beside an interpolation": yaml("x: &a {b: *a}\n", hidden_size="${x}"), "a key that is a list": yaml("? [1, 2]\n: 3\n"), "a merge of text": yaml("<<: x\n"),
    "nested deep": yaml(hidden_size="[" * 20_000), "maps nested deep": yaml(hidden_size="{a: " * 20_000), "a tab": yaml("a:\n\t- b\n"), "no text": file("model_config.yaml", b"\xff\xfe\x00\xd8"), "a list": file("model_config.yaml", "- 1\n"), "two documents": yaml("a: 1\n---\n"), "an alias that is not there": yaml(hidden_size="*b"), "sexagesimal": yaml(num_layers="1:1:1:1:1"),
    "a number of thousands of digits": yaml(hidden_size="9" * 5000), "a date that is none": yaml("a: 2001-99-99\n"), "bytes": yaml(hidden_size="!!binary aGk="), "an interpolation of itself": yaml(hidden_size="${hidden_size}"), "interpolations in a circle": yaml("a: ${b}\nb: ${c}\nc: ${a}\n", hidden_size="${a}"), "a resolver that runs": yaml(hidden_size=f"${{eval:open('{CANARY}','w')}}"),
    "a resolver of the environment": yaml(hidden_size="${oc.env:HOME}"), "interpolations that double": yaml(_DOUBLE, hidden_size="${a59}"), "interpolations nested deep": yaml(hidden_size="${" * 5000 + "x" + "}" * 5000), "thousands of keys": yaml("".join(f"k{i}: {i}\n" for i in range(5000))),
}  # fmt: skip
_YAML |= {"a laugh of a billion in a size": yaml(_LAUGH, hidden_size="*a59"), "a laugh of a billion by interpolation": yaml(_LAUGH, hidden_size="${a59}")}


@cache
def sound_plan() -> str:
    path = llama().parent / "sound.ckplan"
    ckptc.compile("llama", from_="hf", to="nxdt", config=llama() / "config.json", settings={"tp": 2}).save(path)
    return path.read_text()


def planned(change: Callable[[dict[str, Any]], object]) -> Make:
    def make(folder: Path) -> Path:
        document = json.loads(sound_plan())
        change(document)
        return file("x.ckplan", json.dumps(document))(folder)

    return make


def first(document: dict[str, Any], side: str = "source") -> dict[str, Any]:
    found: dict[str, Any] = document["plan"][side]["stored"][0]
    return found


def step(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in document["plan"]["steps"] if s.get("loops"))
    return found


_PLANS = {
    "no text": file("x.ckplan", b"\xff\xfe"), "empty": file("x.ckplan", ""), "nested deep": file("x.ckplan", "[" * 200_000), "another version": planned(lambda d: d.update(version=99)), "a version that is a list": planned(lambda d: d.update(version=[1])), "no plan": planned(lambda d: d.pop("plan")), "a plan that is a list": planned(lambda d: d.update(plan=[])),
    "a file outside": planned(lambda d: d["plan"].update(files=[["../escape", "x"]])), "an absolute file": planned(lambda d: d["plan"].update(files=[["/tmp/escape", "x"]])), "a rank file outside": planned(lambda d: first(d, "target").update(file="../../x.pt")), "a name that reads attributes": planned(lambda d: first(d).update(name="{layer.__class__}")), "a name with a wide hole": planned(lambda d: first(d).update(name="{layer:999999999}")),
    "a name with an index": planned(lambda d: first(d).update(name="{0[0]}")), "a huge shape": planned(lambda d: first(d).update(shape=[1 << 62, 1 << 62])), "a negative shape": planned(lambda d: first(d).update(shape=[-1])), "a shape of floats": planned(lambda d: first(d).update(shape=[1.5])), "a quadrillion tensors": planned(lambda d: first(d).update(boxes=[{"first": [], "loops": [[10**15, []]]}])),
    "a loop beyond": planned(lambda d: step(d)["loops"][0].update(extent=10**12)), "a loop of nothing": planned(lambda d: step(d)["loops"][0].update(extent=0)), "a stride beyond": planned(lambda d: step(d)["loops"][0].update(source=10**15)), "a negative stride": planned(lambda d: step(d)["loops"][0].update(target=-1)), "an offset beyond": planned(lambda d: step(d).update(source_at=10**18)), "a negative offset": planned(lambda d: step(d).update(target_at=-5)),
    "a family that is not there": planned(lambda d: step(d).update(target=10**9)), "a kernel that is none": planned(lambda d: step(d).update(kernel="os.system")), "a scale that is no number": planned(lambda d: step(d).update(scale=float("nan"))), "an infinite scale": planned(lambda d: step(d).update(scale=1e400)), "an unknown field": planned(lambda d: d["plan"].update(evil=1)), "a format that is none": planned(lambda d: d["plan"]["target"].update(format="evil")),
    "a dtype that is none": planned(lambda d: d["plan"].update(dtype="float33")), "steps that are left out": planned(lambda d: d["plan"]["steps"].pop()), "steps twice": planned(lambda d: d["plan"]["steps"].append(d["plan"]["steps"][0])), "something made of code": planned(lambda d: d["plan"].update(made=[{"name": "made:x", "shape": [1], "function": "os.system", "args": []}])),
}  # fmt: skip

_MODEL = "model m { axes { n }  w [n] }\nlayout a of m { %s }\nlayout b of m { \"w\" = w [n] }\n"
_CHAIN = 'model m { axes { n } settings { %s s3000 = 1 }  w [n] }\nlayout a of m { "w" = w [n] when s0 == 1 }\nlayout b of m { "w" = w [n] }\n'
_MAPPINGS = {
    "no text": b"\xff\xfe\x00", "a null": "model m {\0}", "nothing closed": "model m { axes { n }  w [" * 2000, "parentheses nested deep": _MODEL % ('"w" = w [' + "(" * 3000 + "n" + ")" * 3000 + "]"), "a sum of thousands": _MODEL % ('"w" = w [(' + " + ".join(["n"] * 5000) + ")]"), "a name of megabytes": _MODEL.replace(" m ", " " + "m" * 3_000_000 + " ") % '"w" = w [n]',
    "a number of a million digits": _MODEL % ('"w" = w [pad(n, ' + "9" * 1_000_000 + ")]"), "use of a file outside": 'use "../../../../etc/passwd"\n', "use of itself": 'use "x.ckmap"\n' + _MODEL % '"w" = w [n]' + 'layout c of m extends c {}\n', "use of a device": 'use "/dev/zero"\n', "a file outside": _MODEL % 'files "../x.pt"  "w" = w [n]', "an absolute file": _MODEL % 'files "/tmp/x.pt"  "w" = w [n]',
    "a text that does not end": 'model "m', "comments alone": "#" * 1_000_000, "nothing": "", "thousands of models": "".join(f"model m{i} {{ axes {{ a }} w [a] }}\n" for i in range(3000)) + _MODEL % '"w" = w [n]', "a quadrillion copies": _MODEL % '"w" = w [(copies(999999999999999) n)]', "a pad of a quadrillion": _MODEL % '"w" = w [pad(n, 999999999999999)]', "half a character": 'model m { axes { n }  w [n] }\nlayout a of m { "\ud800" = w [n] }'.encode("utf-8", "surrogatepass"),
    "prefixes nested deep": _MODEL % ('under "x" { ' * 3000 + '"w" = w [n]' + " }" * 3000), "lets that double": _MODEL % (" ".join(f"let a{i} = (a{i + 1} + a{i + 1})" for i in range(60)) + ' let a60 = n "w" = w [a0]'), "a condition of thousands": _MODEL % ('"w" = w [n] when ' + "*".join(["999999999999999999"] * 5000) + " == 3"), "a width of millions": _MODEL.replace('layout b of m { "w"', 'layout b of m { "w{n:99999999}"') % '"w" = w [n]',
    "settings in a chain": _CHAIN % " ".join(f"s{i} = s{i + 1}" for i in range(3000)), "settings that double": _CHAIN % " ".join(f"s{i} = s{i + 1} * s{i + 1}" for i in range(3000)), "a model within itself": 'model m { axes { n } part a = m  w [n] }\nlayout a of m { "w" = w [n] part a as a under "x" }\n', "ranks beyond": _MODEL.replace("layout a of m", "layout a of m (" + ", ".join(f"rank r{i} = 1000000" for i in range(30)) + ")") % '"w" = w [n]',
    "layouts in a chain": _MODEL % '"w" = w [n]' + "".join(f"layout l{i} of m extends l{i + 1} {{}}\n" for i in range(1100)) + 'layout l1100 of m { "w" = w [n] }\n', "lets in a chain": _MODEL % (" ".join(f"let a{i} = a{i + 1}" for i in range(1100)) + ' let a1100 = n "w" = w [a0]'), "prefixes in a chain": _MODEL % (" ".join(f'prefix p{i} = p{i + 1} + "x"' for i in range(1100)) + ' prefix p1100 = "y" under p0 { "w" = w [n] }'),
    "choices by the thousand": _MODEL % ('"w" = ' + "".join(f"w [n] when n == {i}, " for i in range(1, 3000)) + "w [n]"), "one tensor by thousands of rules": _MODEL % "\n".join(f'"w{i}" = w [n]' for i in range(2000)), "axes by the thousand": _MODEL.replace("{ n }", "{ n " + " ".join(f"n{i}" for i in range(1000)) + " }").replace("w [n] }\nlayout", "w [n, " + ", ".join(f"n{i}" for i in range(1000)) + "] }\nlayout") % '"w" = w [n]',
    "models in a chain": _MODEL % '"w" = w [n]' + "".join(f"model l{i} extends l{i + 1} {{}}\n" for i in range(1100)) + "model l1100 extends m {}\n", "parts that double": "".join(f"model p{i} {{ axes {{ n }} part a = p{i + 1} part b = p{i + 1} w [n] }}\n" for i in range(40)) + "model p40 { axes { n } w [n] }\n" + _MODEL % '"w" = w [n]',
    "layouts that double": _MODEL % '"w" = w [n]' + "".join(f"layout {x}{i} of m extends d{i + 1}, e{i + 1} {{}}\n" for i in range(40) for x in "de") + 'layout d40 of m { "w" = w [n] }\nlayout e40 of m { "w" = w [n] }\n',
    "layouts that double by their prefixes": _MODEL % '"w" = w [n]' + "".join(f'layout d{i} of m extends d{i + 1} under "a.", d{i + 1} under "b." {{}}\n' for i in range(40)) + 'layout d40 of m { "w" = w [n] }\n', "layouts that double by a condition": _MODEL % '"w" = w [n]' + "".join(f'layout d{i} of m extends d{i + 1} under "a." when n > {i} {{}}\n' for i in range(40)) + 'layout d40 of m { "w" = w [n] }\n',
    "prefixes that double": _MODEL % (" ".join(f'prefix p{i} = p{i + 1} + "x" when n > {i}, p{i + 1} + "y"' for i in range(40)) + ' prefix p40 = "z" under p0 { "w" = w [n] }'), "prefixes that double where they stand": _MODEL % ("".join(f'under "x" when n > {i}, "y" {{ ' for i in range(30)) + '"w" = w [n]' + " }" * 30), "prefixes in a chain that nothing begins with": _MODEL % (" ".join(f'prefix p{i} = p{i + 1} + "x"' for i in range(1100)) + ' prefix p1100 = "y" "w" = w [n]'),
    "parts in a chain": "".join(f"model p{i} {{ axes {{ n }} part a = p{i + 1} w [n] }}\n" for i in range(1100)) + "model p1100 { axes { n } w [n] }\n" + _MODEL % '"w" = w [n]', "file names that double": _MODEL % ('files "x" + ' + " + ".join(f'("{i}" when n > {i})' for i in range(60)) + ' "w" = w [n]'), "conditions that add up": _MODEL % ("".join(f'under "x" when n > {i} {{ ' for i in range(20)) + '"w" = ' + "".join(f"w [n] when n == {i}, " for i in range(1, 99)) + "w [n]" + " }" * 20),
    "models by the hundred with rules by the thousand": _MODEL % "\n".join(f'"w{i}" = w [n]' for i in range(3000)) + "".join(f"model l{i} extends m {{ settings {{ s{i}[n] = true }} }}\n" for i in range(300)), "models by the thousand with settings by the thousand": _MODEL.replace("axes { n }", "axes { n } settings { " + " ".join(f"s{i} = {i}" for i in range(3000)) + " }") % '"w" = w [n]' + "".join(f"model l{i} extends m {{}}\n" for i in range(3000)),
    "thousands of models with thousands of layouts": _MODEL % '"w" = w [n]' + "".join(f'layout x{i} of m {{ "w" = w [n] }}\n' for i in range(2000)) + "".join(f"model l{i} extends m {{}}\n" for i in range(2000)), "faults by the thousand": _MODEL % "\n".join(f'"w{i}" = w [n{i}]' for i in range(3000)),
}  # fmt: skip

_TOKENIZERS = {
    "empty": b"", "noise": bytes(range(256)) * 20, "a length that lies": b"\x0a\xff\xff\xff\xff\x0f", "a varint without end": b"\xff" * 1000, "a field of a huge number": b"\xfa\xff\xff\xff\xff\xff\xff\xff\xff\x01", "groups nested deep": b"\x0b" * 100_000, "pieces that are nothing": b"\x0a\x00" * 50_000, "text": b"hello", "a pickle": b"\x80\x02cos\nsystem\n.",
}  # fmt: skip

CASES = {f"JSON config: {name}": Case(make, config) for name, make in _JSON.items()}
CASES |= {f"YAML config: {name}": Case(make, nemo_config) for name, make in _YAML.items()}
CASES |= {f"plan: {name}": Case(make, saved_plan) for name, make in _PLANS.items()}
CASES |= {f"mapping: {name}": Case(file("x.ckmap", data), mapping) for name, data in _MAPPINGS.items()}
CASES |= {f"tokenizer: {name}": Case(file("t.model", data), tokenizer) for name, data in _TOKENIZERS.items()}
