"""Hostile texts: configs in JSON and YAML, plan files, mapping files; and tokenizer files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ckptc

from .doors import CANARY, Case, Make, config, llama, mapping, saved_plan, tokenizer


def file(name: str, content: str | bytes) -> Make:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (path := folder / name, path.write_bytes(data))[0]


def settings(**changed: Any) -> Make:
    return lambda folder: file("config.json", json.dumps({**json.loads((llama() / "config.json").read_text()), **changed}))(folder)


_JSON = {
    "empty": file("config.json", ""), "no text": file("config.json", b"\xff\xfe\x00"), "nested deep": file("config.json", '{"a":' * 100_000), "lists nested deep": file("config.json", "[" * 200_000), "a list": file("config.json", "[]"), "a number of a million digits": file("config.json", '{"hidden_size": ' + "9" * 1_000_000 + "}"),
    "no layers": settings(num_hidden_layers=0), "negative layers": settings(num_hidden_layers=-3), "10**15 layers": settings(num_hidden_layers=10**15), "10**40 layers": settings(num_hidden_layers=10**40), "layers of text": settings(num_hidden_layers="x" * 100), "layers that are a list": settings(num_hidden_layers=[1] * 1000), "layers that are an object": settings(num_hidden_layers={"a": 1}),
    "half a layer": settings(num_hidden_layers=2.5), "infinite layers": settings(num_hidden_layers=float("inf")), "layers that are no number": settings(num_hidden_layers=float("nan")), "a hidden size beyond": settings(hidden_size=1 << 62), "no heads": settings(num_attention_heads=0), "heads that do not divide": settings(num_attention_heads=7, num_key_value_heads=3, head_dim=None), "a vocabulary of a quadrillion": settings(vocab_size=10**15, num_hidden_layers=10**9),
    "a model type that is a list": settings(model_type=["llama"]), "an architecture of megabytes": settings(architectures=["x" * 3_000_000], model_type="x"), "an activation that is an object": settings(hidden_act={"a": []}),
}  # fmt: skip
_LAUGH = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
_YAML = {
    "python/object/apply": f"!!python/object/apply:os.system ['touch {CANARY}']\n", "python/object/new": f"a: !!python/object/new:os.system ['touch {CANARY}']\n", "python/name": "a: !!python/name:os.system\n", "python/module": "a: !!python/module:os\n", "python/tuple": "a: !!python/tuple [1]\n", "an unknown tag": "a: !evil {}\n",
    "a laugh of a billion": _LAUGH, "an anchor in itself": "&a [*a]\n", "a key that is a list": "? [1, 2]\n: 3\n", "a merge of text": "<<: x\n", "nested deep": "[" * 20_000, "maps nested deep": "{a: " * 20_000, "a tab": "a:\n\t- b\n", "no text": b"\xff\xfe\x00\xd8", "a list": "- 1\n", "two documents": "a: 1\n---\nb: 2\n", "an alias that is not there": "a: *b\n", "sexagesimal": "num_layers: 1:1:1:1:1\n",
    "an interpolation of itself": "a: ${a}\nhidden_size: ${a}\n", "interpolations in a circle": "a: ${b}\nb: ${c}\nc: ${a}\n", "a resolver that runs": f"hidden_size: ${{oc.env:HOME}}\nx: ${{eval:open('{CANARY}','w')}}\n", "interpolations that double": "a0: xx\n" + "".join(f"a{i}: ${{a{i - 1}}}${{a{i - 1}}}\n" for i in range(1, 60)) + "hidden_size: ${a59}\n", "interpolations nested deep": "a: " + "${" * 5000 + "x" + "}" * 5000 + "\n",
}  # fmt: skip


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
_MAPPINGS = {
    "no text": b"\xff\xfe\x00", "a null": "model m {\0}", "nothing closed": "model m { axes { n }  w [" * 2000, "parentheses nested deep": _MODEL % ('"w" = w [' + "(" * 3000 + "n" + ")" * 3000 + "]"), "a sum of thousands": _MODEL % ('"w" = w [' + "+".join(["n"] * 20_000) + "]"), "a name of megabytes": "model " + "m" * 3_000_000 + " { axes { n } }",
    "a number of a million digits": _MODEL % ('"w" = w [n:' + "9" * 1_000_000 + "]"), "use of a file outside": 'use "../../../../etc/passwd"\n', "use of itself": 'use "x.ckmap"\n' + _MODEL % '"w" = w [n]' + 'layout c of m extends c {}\n', "use of a device": 'use "/dev/zero"\n', "a file outside": _MODEL % 'files "../x.pt"  "w" = w [n]', "an absolute file": _MODEL % 'files "/tmp/x.pt"  "w" = w [n]',
    "a text that does not end": 'model "m', "comments alone": "#" * 1_000_000, "nothing": "", "ten thousand models": "".join(f"model m{i} {{ axes {{ a }} w [a] }}\n" for i in range(3000)), "a quadrillion copies": _MODEL % '"w" = w [copies(999999999999999) * n]', "a pad of a quadrillion": _MODEL % '"w" = w [pad(n, 999999999999999)]', "half a character": 'model m { axes { n }  w [n] }\nlayout a of m { "\ud800" = w [n] }'.encode("utf-8", "surrogatepass"),
}  # fmt: skip

_TOKENIZERS = {
    "empty": b"", "noise": bytes(range(256)) * 20, "a length that lies": b"\x0a\xff\xff\xff\xff\x0f", "a varint without end": b"\xff" * 1000, "a field of a huge number": b"\xfa\xff\xff\xff\xff\xff\xff\xff\xff\x01", "groups nested deep": b"\x0b" * 100_000, "pieces that are nothing": b"\x0a\x00" * 50_000, "text": b"hello", "a pickle": b"\x80\x02cos\nsystem\n.",
}  # fmt: skip

CASES = {f"JSON config: {name}": Case(make, config) for name, make in _JSON.items()}
CASES |= {f"YAML config: {name}": Case(file("hparams.yaml", data), config) for name, data in _YAML.items()}
CASES |= {f"plan: {name}": Case(make, saved_plan) for name, make in _PLANS.items()}
CASES |= {f"mapping: {name}": Case(file("x.ckmap", data), mapping, name == "a pad of a quadrillion") for name, data in _MAPPINGS.items()}
CASES |= {f"tokenizer: {name}": Case(file("t.model", data), tokenizer) for name, data in _TOKENIZERS.items()}
