"""What a layout that extends another inherits, and what its own items replace."""

from __future__ import annotations

import pytest

from ckptc.compiler.link.flat import FlatLayout
from ckptc.compiler.link.link import link
from ckptc.dsl.diagnostic import MappingError
from ckptc.dsl.formatting.show import show
from ckptc.dsl.parsing.parse import parse

MODEL = "model m { axes { layer a }  w [layer, a]  v [layer, a] }\n"
BASE = """
layout base of m (rank tp = 1, rank pp = 1, flat = false) {
  files "a_{tp}.pt" when tp > 1, "a.pt"
  format pt | safetensors
  config "config.json" { layer = .layers }
  stages layer over pp
  axis a = (hi lo) with hi = 2
  let rows = (hi lo) when flat, (lo hi)
  "w" = w [layer, a]  when flat
  "w" = w [layer, rows]  when not flat
  "v" = v [layer, rows]
}
"""


def extended(items: str) -> FlatLayout:
    (family,) = link([parse(MODEL + BASE + "layout own of m extends base {" + items + "}")])
    return family.layout("own")


def rules(layout: FlatLayout) -> list[str]:
    return [show(r.rule) for r in layout.rules]


def test_all_is_inherited() -> None:
    (family,) = link([parse(MODEL + BASE)])
    assert rules(extended("")) == rules(family.layout("base"))
    for part in ("files", "formats", "config", "stages", "refinements", "lets"):
        assert getattr(extended(""), part) == getattr(family.layout("base"), part)
    assert extended("").params == family.layout("base").params


def test_rules_of_one_first_name_replace_all_inherited_ones_where_these_stood() -> None:
    own = '"w" = w [a, layer] when pp > 1  "w" or "x" = w [layer, a] when pp == 1  "u" = w [layer, a]'
    assert rules(extended(own)) == [
        '"w" = w [a, layer] when pp > 1',
        '"w" or "x" = w [layer, a] when pp == 1',
        '"v" = v [layer, rows]',
        '"u" = w [layer, a]',
    ]


def test_an_item_replaces_inherited_ones_of_its_kind_and_name() -> None:
    own = """
    files "b.pt"  format safetensors  config "other.json" { layer = .n }
    stages layer over pp remainder last  axis a = (x y) with x = 2  let rows = (y x)
    """
    found = extended(own)
    assert [show(x) for x in (*found.files, found.formats, found.stages, *found.refinements, *found.lets) if x is not None] == [
        'files "b.pt"', "format safetensors", "stages layer over pp remainder last", "axis a = (x y) with x = 2", "let rows = (y x)"
    ]  # fmt: skip
    assert found.config is not None
    assert found.config.file == "other.json"


def test_prefixes_and_guards_are_written_into_rules_that_keep_their_places() -> None:
    text = MODEL + 'layout one of m {\n under "a." when 1 < 2 {\n  under "{layer}." {\n   "w" = w [a] when 2 < 3\n  }\n }\n}'
    (family,) = link([parse(text)])
    (rule,) = family.layout("one").rules
    assert show(rule.rule) == '"a.{layer}.w" = w [a] when 1 < 2 and 2 < 3'
    assert rule.rule.span.line == 5


# --- prefixes -------------------------------------------------------------------------------------


def test_of_several_prefixes_the_first_whose_guard_holds_is_taken() -> None:
    text = """layout l of m (old = false, flat = false) {
      under "a." when old, "b.{layer}." when flat, "c." { "w" = w [layer, a]  under "x." when flat { ignore "y" } }
    }"""
    (family,) = link([parse(MODEL + text)])
    layout = family.layout("l")
    assert rules(layout) == [
        '"a.w" = w [layer, a] when old',
        '"b.{layer}.w" = w [layer, a] when not old and flat',
        '"c.w" = w [layer, a] when not old and not flat',
    ]
    assert [show(i) for i in layout.ignores] == [
        'ignore "a.x.y" when old and flat',
        'ignore "b.{layer}.x.y" when not old and flat and flat',
        'ignore "c.x.y" when not old and not flat and flat',
    ]
    assert len({r.block for r in layout.rules}) == 1


# --- families -------------------------------------------------------------------------------------

CHILD = "model child extends m {}\n"


def test_a_familys_own_layout_stands_in_the_place_of_an_inherited_one() -> None:
    own = 'layout base of child (rank tp = 1) { "mine" = w [layer, a]  "v" = v [layer, a] }'
    families = {f.name: f for f in link([parse(MODEL + CHILD + BASE + own)])}
    assert rules(families["child"].layout("base"))[0] == '"mine" = w [layer, a]'
    assert rules(families["m"].layout("base"))[-1] == '"v" = v [layer, rows]'
    assert families["child"].own == {"base"}


def test_a_layout_without_rules_is_only_there_to_be_extended() -> None:
    ranks = 'layout ranks of m (rank tp = 1) { files "r{tp}.pt" }\nlayout full of m extends ranks { "w" = w [layer, a]  "v" = v [layer, a] }'
    (family,) = link([parse(MODEL + ranks)])
    assert [x.name for x in family.layouts] == ["full"]
    (alone,) = link([parse(MODEL + 'layout ranks of m (rank tp = 1) { files "r{tp}.pt" }')])
    assert [x.name for x in alone.layouts] == ["ranks"]  # not a base: it is told that it has no rules


DERIVED = MODEL + BASE + "model n extends m {}\n"


def test_several_bases_each_under_its_prefix() -> None:
    text = MODEL + """
    base layout modules of m { "w" = w [layer, a]  under "in." { "v" = v [layer, a] }  ignore "old"  let rows = a }
    base layout files of m { files "x.pt"  format pt  let rows = (a 1) }
    layout full of m extends modules under "model.", files { "model.w" = w [a, layer] }
    layout bare of m extends modules {}
    """
    (family,) = link([parse(text)])
    full, bare = family.layouts  # what is only there to be extended is none
    assert (full.name, bare.name) == ("full", "bare")
    assert [show(flat.rule) for flat in full.rules] == ['"model.w" = w [a, layer]', '"model.in.v" = v [layer, a]']
    assert [show(flat.rule) for flat in bare.rules] == ['"w" = w [layer, a]', '"in.v" = v [layer, a]']
    assert [show(x) for x in full.ignores] == ['ignore "model.old"']
    assert [show(x) for x in (*full.files, full.formats, *full.lets) if x is not None] == ['files "x.pt"', "format pt", "let rows = (a 1)"]


def test_what_two_bases_share_is_there_once() -> None:
    text = MODEL + """
    base layout top of m { carry "x" }
    base layout one of m extends top { "w" = w [layer, a] }
    base layout two of m extends top { "v" = v [layer, a] }
    layout full of m extends one, two {}
    """
    (family,) = link([parse(text)])
    assert [show(x) for x in family.layout("full").carry] == ['carry "x"']
    assert len(family.layout("full").rules) == 2


def test_a_parameter_that_is_fixed_leaves_its_other_words_known() -> None:
    text = MODEL + """
    base layout one of m (form = ranks | whole) { "w" = w [layer, a] when form != whole  "v" = v [layer, a] }
    layout two of m extends one (form = ranks) { format pt }
    """
    (family,) = link([parse(text)])
    (form,) = family.layout("two").params
    assert form.choices == ()
    assert family.layout("two").words == {"ranks", "whole"}


def test_a_layout_that_extends_its_own_name_extends_the_one_it_replaces() -> None:
    base, own = link([parse(DERIVED + 'layout base of n extends base { "w" = w [a, layer] }')])
    assert rules(own.layout("base")) == ['"w" = w [a, layer]', '"v" = v [layer, rows]']
    assert rules(base.layout("base"))[0] == '"w" = w [layer, a] when flat'
    assert [p.name for p in own.layout("base").params] == ["tp", "pp", "flat"]


def test_a_layout_is_a_family_s_only_if_it_has_a_place_for_all_that_the_family_certainly_has() -> None:
    base, own = link([parse(MODEL + BASE + "model n extends m { settings { extra = true }  u [layer]  when extra }")])
    assert [x.name for x in base.layouts] == ["base"]
    assert (own.layouts, own.lacking) == ((), {"base": "u"})
    with pytest.raises(MappingError, match="it has no place for its `u`"):
        own.layout("base")
    maybe = "model n extends m { settings { extra = false }  u [layer]  when extra  t [layer] optional }"
    assert [x.name for x in link([parse(MODEL + BASE + maybe)])[1].layouts] == ["base"]


def test_a_bar_stands_for_a_weight_and_its_bias() -> None:
    text = '''model m { axes { a b }  w [a, b]  w_bias [a]  v [a, b]  v_bias [a]  n [a]  n_bias [a] }
    layout one of m { let rows = (w: a + v: a)  "x" = [rows | b] as bf16  "n" or "o" = n [a |] + 1 }'''
    (family,) = link([parse(text)])
    assert rules(family.layout("one")) == [
        '"x.weight" = [rows, b] as bf16',
        '"x.bias" = [rows] with (w: w_bias, v: v_bias) as bf16',
        '"n.weight" or "o.weight" = n [a] + 1',
        '"n.bias" or "o.bias" = n_bias [a]',
    ]


def test_of_several_choices_each_rule_is_for_where_none_before_holds() -> None:
    text = 'model m { axes { a b }  w [a, b] }\nlayout one of m (p = 1) { "x" = w [a, b] when p == 1, w [b, a] when p == 2, w [(a b)] }'
    (family,) = link([parse(text)])
    assert rules(family.layout("one")) == [
        '"x" = w [a, b] when p == 1',
        '"x" = w [b, a] when not p == 1 and p == 2',
        '"x" = w [(a b)] when not p == 1 and not p == 2',
    ]


def test_parts_of_a_file_name_are_there_if_their_guard_holds() -> None:
    text = 'model m { axes { a }  w [a] }\nlayout one of m (rank tp = 1, rank pp = 1) { files "r{tp}" + ("_{pp}" when pp > 1) + ".pt" or "old{pp}" when tp > 1, "all"  "w" = w [a] }'
    (family,) = link([parse(text)])
    assert [show(x) for x in family.layout("one").files] == [
        'files "r{tp}_{pp}.pt" or "old{pp}" when tp > 1 and pp > 1',
        'files "r{tp}.pt" or "old{pp}" when tp > 1 and not pp > 1',
        'files "all"',
    ]


def test_a_named_prefix_is_that_of_the_last_layout_that_says_it() -> None:
    text = '''model m { axes { layer a }  w [layer, a]  v [a] }
    base layout names of m (new = true) {
      prefix top = "model." when new, ""
      prefix block = top + "layers.{layer}."
      under block + "in." { "w" = w [a] }
      under top { "v" = v [a] }
    }
    layout one of m extends names {}
    layout two of m extends names { prefix top = "t." }'''
    (family,) = link([parse(text)])
    assert rules(family.layout("one")) == [
        '"model.layers.{layer}.in.w" = w [a] when new', '"layers.{layer}.in.w" = w [a] when not new',
        '"model.v" = v [a] when new', '"v" = v [a] when not new',
    ]  # fmt: skip
    assert rules(family.layout("two")) == ['"t.layers.{layer}.in.w" = w [a]', '"t.v" = v [a]']


def test_a_tensor_before_or_after_an_axis_is_on_the_first_or_the_last_stage_of_it() -> None:
    text = '''model m { axes { layer a }  e [a] before layer  w [layer, a]  n [a] after layer }
    base layout names of m { "e" = e [a]  "{layer}.w" = w [a]  "n" = n [a]  copy "c" = e [a] on last }
    layout whole of m extends names {}
    layout ranks of m extends names (rank pp = 1) { files "{pp}.pt"  stages layer over pp }'''
    (family,) = link([parse(text)])
    assert [flat.rule.on for flat in family.layout("whole").rules] == [None, None, None, "last"]
    assert [flat.rule.on for flat in family.layout("ranks").rules] == ["first", None, "last", "last"]


def test_a_guard_is_parted_into_what_settings_decide_and_what_is_about_indices() -> None:
    text = '''model m { axes { layer a }  settings { s = 1  odd[layer] = layer % 2 == 1 }  w [layer, a] when odd and s == 1 }
    layout one of m { under "o." when s == 1 and odd, "e." { "{layer}.w" = w [a] } }'''
    (family,) = link([parse(text)])
    (tensor,) = family.model.tensors
    assert (show(tensor.when), show(tensor.where)) == ("s == 1", "odd")
    assert [(flat.rule.when and show(flat.rule.when), show(flat.rule.where)) for flat in family.layout("one").rules] == [
        ("s == 1", "odd"), (None, "not (s == 1 and odd)")
    ]  # fmt: skip


PARTS = """
model tower {
  axes { layer width }
  settings { deep = true  late[layer] = layer > 0 }
  w [layer, width]  when late
  n [width]  after layer when deep
}
layout hf of tower (order = up | down) {
  config "config.json" { layer = .layers  width = .size  .kind = "tower" }
  let rows = width
  under "b{layer}." when order == up, "c{layer}." { "w" = w [rows] }
  "n" = n [width]
}
model whole { axes { layer a }  part eye = tower optional  t [layer, a] }
layout hf of whole (kept = true) {
  config "config.json" { layer = .n  a = .a }
  omit (eye) when not kept
  "{layer}.t" = t [a]
  part eye as hf under "eye." when kept, "" keys .eye_config
}
"""


def test_a_part_is_another_model_with_its_name_before_all_names() -> None:
    _, whole = link([parse(PARTS)])
    assert [x.name for x in whole.model.axes] == ["eye_layer", "eye_width", "layer", "a"]
    assert [(x.name, x.optional, [axis.name for axis in x.axes]) for x in whole.model.tensors] == [
        ("eye_w", True, ["eye_layer", "eye_width"]), ("eye_n", True, ["eye_width"]), ("t", False, ["layer", "a"])
    ]  # fmt: skip
    layout = whole.layout("hf")
    assert [p.name for p in layout.params] == ["kept", "eye_order"]
    assert rules(layout)[:2] == ['"{layer}.t" = t [a]', '"eye.b{eye_layer}.w" = eye_w [eye_rows] when kept and eye_order == up']
    assert [x.tensors for x in layout.omits] == [("eye_w", "eye_n")]
    assert layout.config is not None
    assert [show(x) for x in layout.config.items] == [
        "layer = .n", "a = .a", "eye_layer = .eye_config.layers", "eye_width = .eye_config.size", '.eye_config.kind = "tower"'
    ]  # fmt: skip


CHOOSES = 'base layout a of m (form = x | y, other = p | q) {}\nbase layout b of m extends a (form = y) {}\n'


@pytest.mark.parametrize("own", ["form = z", "form = x | z", "form = p", "other = z"])
@pytest.mark.parametrize("base", ["a", "b"])
def test_what_is_inherited_with_choices_is_one_of_them(base: str, own: str) -> None:
    with pytest.raises(MappingError, match=r"unknown-choice.*is inherited as one of"):
        link([parse(MODEL + CHOOSES + f"layout own of m extends {base} ({own}) {{ format safetensors }}")])


@pytest.mark.parametrize("own", ["form = y", "form = y | x", "form = x", "other = q", "more = z", "more = z | w"])
def test_choices_may_be_fewer_or_turned_or_chosen_again(own: str) -> None:
    link([parse(MODEL + CHOOSES + f"layout own of m extends b ({own}) {{ format safetensors }}")])


def test_extending_its_own_name_needs_one_to_inherit() -> None:
    with pytest.raises(MappingError, match="circular-extends"):
        link([parse(MODEL + BASE + "layout own of m extends own {}")])


# --- parts within a whole -------------------------------------------------------------------------

EYE = """
model tower { axes { lay width }  pre [width] before lay  q [lay, width] }
layout hf of tower (rank pp = 1) {
  files "t{pp}"
  config "tower.json" { lay = .layers  width = .size  only .act is "gelu" }
  stages lay over pp
  "pre" = pre [width]
  "t.{lay}.q" = q [width]
}
model whole { axes { layer a }  part eye = tower  eye_norm [a]  e [layer, a] }
base layout names of whole { config "config.json" { layer = .n  a = .a }  "e.{layer}" = e [a]  "norm" = eye_norm [a] }
base layout media of whole { part eye as hf under "eye." keys .vision }
"""
OF_EYE = ["eye_lay = .vision.layers", "eye_width = .vision.size", 'only .vision.act is "gelu"']


def whole(text: str) -> FlatLayout:
    return link([parse(EYE + text)])[1].layouts[0]


def config(layout: FlatLayout) -> list[str]:
    assert layout.config is not None
    return [show(x) for x in layout.config.items]


@pytest.mark.parametrize("bases", ["names, media", "media, names"])
def test_the_config_of_a_part_is_there_in_whatever_order_bases_stand(bases: str) -> None:
    found = whole(f"layout one of whole extends {bases} {{}}")
    assert config(found) == ["layer = .n", "a = .a", *OF_EYE]
    assert found.config is not None
    assert found.config.file == "config.json"


def test_what_the_whole_says_in_its_config_goes_before_what_a_part_says() -> None:
    own = 'eye_lay = .deep  eye_width = none  only .vision.act is "relu"  a = .vision.act'
    assert config(whole(f"layout one of whole extends names, media {{ config {{ {own} }} }}")) == [
        "layer = .n", "a = .vision.act", "eye_lay = .deep", 'only .vision.act is "relu"'
    ]  # fmt: skip


def test_a_config_of_another_file_has_none_of_what_parts_say_in_the_inherited_one() -> None:
    base = "base layout both of whole extends names, media {}"
    assert config(whole(base + 'layout one of whole extends both { config "other.json" { a = .b } }')) == ["a = .b"]


def test_a_part_stands_below_the_prefix_and_the_keys_of_a_layout_that_is_extended() -> None:
    found = whole('layout one of whole extends names, media under "top." keys .deep {}')
    assert rules(found)[2:] == ['"top.eye.pre" = eye_pre [eye_width]', '"top.eye.t.{eye_lay}.q" = eye_q [eye_width]']
    assert config(found)[2:] == [x.replace(".vision", ".deep.vision") for x in OF_EYE]


def test_a_part_is_left_out_without_the_tensors_of_the_whole_that_are_called_like_it() -> None:
    assert whole("layout one of whole extends names { omit (eye) }").omits[0].tensors == ("eye_pre", "eye_q")


def test_stages_of_a_part_alone_place_nothing_in_the_whole() -> None:
    staged = 'layout one of whole extends names, media (rank pp = 1) { files "{pp}"  stages layer over pp }'
    assert [flat.rule.on for flat in whole(staged).rules] == [None] * 4
    held = link([parse(EYE + staged)])[0].layouts[0]
    assert [flat.rule.on for flat in held.rules] == ["first", None]


@pytest.mark.parametrize(
    "twice",
    [
        "format pt  format bin", "stages layer over pp  stages layer over tp", 'state "a{dp}" over dp  state "b{dp}" over dp',
        'prefix p = "a"  prefix p = "b"', 'part eye as hf under "b."  part eye as hf under "c."',
    ],
)  # fmt: skip
def test_what_is_said_once_is_refused_when_it_is_said_twice(twice: str) -> None:
    with pytest.raises(MappingError, match="said-twice"):
        whole(f"layout one of whole extends names (rank pp = 1, rank tp = 1) {{ {twice} }}")


def test_a_part_of_a_model_is_declared_once() -> None:
    for text in ("model n { part eye = tower  part eye = tower }", "model n extends whole { part eye = tower }"):
        with pytest.raises(MappingError, match="part `eye` is declared twice"):
            whole(text)


def test_a_bias_is_not_made_as_its_weight_is() -> None:
    (family,) = link([parse(MODEL + 'layout l of m { "w" = w [layer | a] as f32 optional made rope(10000) view [a]  "v" = v [layer, a] }')])
    assert rules(family.layout("l"))[:2] == [
        '"w.weight" = w [layer, a] as f32 optional made rope(10000) view [a]', '"w.bias" = w_bias [layer] as f32 optional'
    ]  # fmt: skip


@pytest.mark.parametrize(("base", "own"), [("low[layer] = layer > 1", "low = true"), ("low = true", "low[layer] = layer > 1")])
def test_a_setting_of_all_indices_replaces_one_of_each_and_the_reverse(base: str, own: str) -> None:
    text = "model m { axes { layer a }  settings { SAID }  w [layer, a] when low }\n"
    child = "model n extends m { settings { SAID } }\n"
    _, inheriting = link([parse(text.replace("SAID", base) + child.replace("SAID", own))])
    (alone,) = link([parse(text.replace("SAID", own))])
    assert inheriting.model.settings == alone.model.settings
    assert inheriting.model.selects == alone.model.selects
    assert inheriting.model.tensors == alone.model.tensors
