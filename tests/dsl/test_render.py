"""Diagnostics look as the style page shows them."""

from __future__ import annotations

from ckptc.dsl import Diagnostic, Label, Span
from ckptc.dsl.diagnostic import MappingError
from ckptc.dsl.nearest import nearest
from ckptc.dsl.render import render, to_record

SOURCE = "\n" * 30 + "      = [(group/tp (q: share dim + k: dim + v: dim)), hidden]\n"


def fault(line: int = 31, column: int = 11, end: int = 19, **more: object) -> Diagnostic:
    label = Label(Span("llama.ckmap", line, column, line, end), "sliced into 3 blocks here")
    return Diagnostic("uneven-split", "`group` (8) does not divide over tp = 3", (label,), **more)  # type: ignore[arg-type]


def test_a_diagnostic_is_rendered_in_the_house_style() -> None:
    shown = render(
        [fault(notes=("group = 8 comes from config.json",), help="use tp = 1, 2, 4 or 8")], {"llama.ckmap": SOURCE}
    )
    assert shown == (
        "error[uneven-split]: `group` (8) does not divide over tp = 3\n"
        "  --> llama.ckmap:31:11\n"
        "   |\n"
        "31 |       = [(group/tp (q: share dim + k: dim + v: dim)), hidden]\n"
        "   |           ^^^^^^^^ sliced into 3 blocks here\n"
        "   |\n"
        "   = note: group = 8 comes from config.json\n"
        "   = help: use tp = 1, 2, 4 or 8"
    )


def test_equal_faults_are_folded_into_one() -> None:
    shown = render([fault(), fault(31, 3), fault(31, 4)], {"llama.ckmap": SOURCE})
    assert shown.count("error[") == 1
    assert "= note: and 2 more places: llama.ckmap:31:3, llama.ckmap:31:4" in shown


def test_a_diagnostic_without_labels_has_no_excerpt() -> None:
    assert (
        render([Diagnostic("lost", "nothing here", help="look there")], {})
        == "error[lost]: nothing here\n  = help: look there"
    )


def test_a_place_in_an_unknown_file_has_no_excerpt() -> None:
    assert render([fault()], {}).split("\n")[1:] == ["  --> llama.ckmap:31:11"]


def test_carets_stand_right_after_tabs_and_wide_characters() -> None:
    label = Label(Span("f", 1, 5, 1, 6))
    shown = render([Diagnostic("c", "t", (label,))], {"f": "\t層\u0301 x y"}).split("\n")
    assert shown[-2].index("x") + 1 - 1 == shown[-1].index("^")  # 層 takes two columns and its accent none


def test_labels_in_other_files_and_lines_are_shown_too() -> None:
    labels = (
        Label(Span("a", 5, 1, 5, 2), "here"),
        Label(Span("a", 1, 1, 1, 2), "there"),
        Label(Span("b", 2, 1, 2, 2), "and there"),
    )
    assert render([Diagnostic("c", "t", labels)], {"a": "p\n\n\n\nq", "b": "\nr"}) == (
        "error[c]: t\n --> a:5:1\n  |\n1 | p\n  | - there\n...\n5 | q\n  | ^ here\n ::: b:2:1\n  |\n2 | r\n  | - and there\n  |"
    ).removesuffix("\n  |")


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in render([Diagnostic("c", "t", (Label(Span("f", 1, 1, 1, 2)),))], {"f": "\x1b[31m"})


def test_colour_changes_nothing_but_colour() -> None:
    import re

    plain = render([fault(help="h")], {"llama.ckmap": SOURCE})
    assert re.sub("\x1b\\[[0-9;]*m", "", render([fault(help="h")], {"llama.ckmap": SOURCE}, color=True)) == plain


def test_a_record_is_plain_data() -> None:
    record = to_record(fault(notes=("n",)))
    assert record["labels"][0]["file"] == "llama.ckmap"
    assert (record["code"], record["severity"], record["notes"], record["help"]) == ("uneven-split", "error", ["n"], "")


def test_the_nearest_name_is_suggested_only_when_near() -> None:
    assert nearest("embeding", ["embed", "embedding", "head"]) == "embedding"
    assert nearest("zzz", ["embed", "head"]) is None
    assert nearest("tp", ["pp", "vocab"]) is None


def many(n: int, severity: str = "error") -> list[Diagnostic]:
    return [Diagnostic(severity, f"fault {i}", severity=severity) for i in range(n)]


def test_of_many_faults_the_first_are_shown_and_the_others_counted() -> None:
    assert render(many(20), {}).split("\n\n")[-1] == "error[error]: fault 19"
    assert render(many(1021), {}).split("\n\n")[-2:] == ["error[error]: fault 19", "and 1,001 more"]
    assert str(MappingError(*many(21))).split("\n\n")[-2:] == ["error[error]: fault 19", "and 1 more"]


def test_where_not_all_are_shown_errors_come_before_warnings() -> None:
    shown = render([*many(30, "warning"), *many(1)], {}).split("\n\n")
    assert (shown[0], shown[1], shown[-1]) == ("error[error]: fault 0", "warning[warning]: fault 0", "and 11 more")


def test_long_faults_are_fewer() -> None:
    shown = render([Diagnostic("c", f"{i} " + "x" * 1000) for i in range(15)], {}).split("\n\n")
    assert len(shown) == 7
    assert shown[-1] == "and 9 more"


def test_one_fault_shows_a_few_places_and_notes_and_counts_the_others() -> None:
    labels = tuple(Label(Span("f", i, 1, i, 2)) for i in range(1, 10))
    wordy = Diagnostic("c", "t", labels, tuple(f"note {i}" for i in range(22)))
    shown = render([wordy], {"f": "a\n" * 30})
    assert "8 | a" in shown
    assert "9 | a" not in shown
    assert shown.split("\n")[-3:] == ["  = note: note 19", "  = note: and 1 more place", "  = note: and 2 more notes"]
    assert str(wordy).count(" --> ") == 8
