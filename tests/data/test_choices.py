"""Which scans are used: by withdrawal, image, visit and diagnosis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.choices import NOT_CHOSEN, choose
from bench.data.diagnosis import SPELLINGS, normalise, parse_classes, spelled
from bench.data.manifest import refuse_repeats, tidy
from registry.errors import UserError

DEFAULTS = {"withdrawals": "", "visits": "all", "classes": "", "horizon": 36.0}


def chosen(rows: list[dict], exams: list[tuple] | None = None, **options) -> pd.DataFrame:
    """Return the scans after choosing, by path."""
    found = pd.DataFrame(rows)
    if "path" not in found:
        found["path"] = [f"{i}.nii" for i in range(len(found))]
    if exams is not None:
        found.attrs["exams"] = pd.DataFrame(exams, columns=["subject_id", "day", "diagnosis"])
    return choose(tidy(found), {**DEFAULTS, **options}).set_index("path")


def scan(subject: str = "a", session: str = "1", **more) -> dict:
    return {"subject_id": subject, "session_id": session, **more}


# --- Diagnoses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("NL", "CN"),
        ("Cognitively Normal", "CN"),
        ("EMCI", "MCI"),
        ("Dementia", "AD"),
        ("Alzheimer's", "AD"),
        ("MCI to Dementia", "AD"),
        ("NL to MCI", "MCI"),
        ("MCI->AD", "AD"),
        ("Dementia to MCI", "MCI"),
        ("Converted", "Converted"),
        ("", ""),
        ("Patient", None),
        ("normal-ish", None),
    ],
)
def test_the_last_term_of_a_known_spelling_counts(word: str, meaning: str | None) -> None:
    assert spelled(word) == meaning


def test_no_spelling_means_two_diagnoses() -> None:
    words = [word for spellings in SPELLINGS.values() for word in spellings]
    assert len(words) == len(set(words))


def test_an_unknown_diagnosis_stops_with_the_list_of_values() -> None:
    with pytest.raises(UserError, match=r"'Patient', 'pt'.*one of 'cn', 'nl'"):
        normalise(["CN", "Patient", "AD", "pt"], "The table")


@given(st.text(max_size=30))
def test_no_word_becomes_a_control_but_by_the_list(word: str) -> None:
    last = word.replace("->", " to ").split(" to ")[-1].strip().lower()
    assert (spelled(word) == "CN") == (last in SPELLINGS["CN"])


def test_classes_join_diagnoses_and_keep_their_order() -> None:
    assert parse_classes("CN+SMC,mci,Dementia") == {
        "CN": "CN+SMC",
        "SMC": "CN+SMC",
        "MCI": "MCI",
        "AD": "AD",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("CN", "at least two"),
        ("CN,AX", "'AX' is not a known diagnosis"),
        ("CN,AD+CN", "CN occurs twice"),
        ("sMCI,pMCI,MCI", "MCI cannot be combined with"),
        ("CN,", "at least two"),
    ],
)
def test_classes_that_make_no_sense_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_classes(text)


def test_diagnoses_outside_the_classes_are_left_out_by_name() -> None:
    rows = [scan(s, diagnosis=d) for s, d in zip("abcd", ("NL", "AD", "LMCI", ""), strict=True)]
    found = chosen(rows, classes="CN,AD")
    assert found["diagnosis"].tolist() == ["CN", "AD", "", ""]
    assert found["reason"].tolist() == [
        "",
        "",
        "diagnosis MCI, not among the classes",
        "no diagnosis",
    ]
    assert found.attrs["classes"] == ("CN", "AD")


def test_smc_is_a_control_only_where_the_user_says_so() -> None:
    rows = [scan("a", diagnosis="SMC"), scan("b", diagnosis="AD")]
    assert chosen(rows, classes="CN,AD")["reason"].iloc[0] == "diagnosis SMC, not among the classes"
    assert chosen(rows, classes="CN+SMC,AD")["diagnosis"].tolist() == ["CN+SMC", "AD"]


def test_without_classes_diagnoses_stay_as_the_table_says() -> None:
    assert chosen([scan(diagnosis="odd")])["diagnosis"].tolist() == ["odd"]


# --- Conversion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exams", "label", "reason"),
    [
        ([(0, "MCI"), (900, "AD")], "pMCI", ""),
        ([(0, "MCI"), (1200, "AD")], "sMCI", ""),
        ([(0, "MCI"), (500, "MCI"), (1100, "MCI")], "sMCI", ""),
        ([(0, "MCI"), (500, "MCI")], "", "MCI followed for less than 36 months"),
        ([(0, "MCI")], "", "MCI followed for less than 36 months"),
        ([(0, "MCI"), (400, "NL"), (1100, "MCI")], "", "MCI that reverted within 36 months"),
        ([(-400, "AD"), (0, "MCI"), (1100, "MCI")], "sMCI", ""),
        ([(0, "MCI"), (400, ""), (1100, "MCI to MCI")], "sMCI", ""),
    ],
)
def test_mci_is_stable_or_progressive_by_what_follows(exams, label, reason) -> None:
    others = [scan("b", diagnosis="CN", day=0.0)]
    found = chosen(
        [scan("a", diagnosis="MCI", day=0.0), *others],
        [("a", float(day), word) for day, word in exams],
        classes="sMCI,pMCI",
    )
    assert (found["diagnosis"].iloc[0], found["reason"].iloc[0]) == (label, reason)


def test_the_horizon_is_an_option() -> None:
    rows, exams = [scan(diagnosis="MCI", day=0.0)], [("a", 900.0, "AD"), ("a", 800.0, "MCI")]
    assert chosen(rows, exams, classes="sMCI,pMCI", horizon=24.0)["diagnosis"].tolist() == ["sMCI"]


def test_conversion_needs_exams() -> None:
    with pytest.raises(UserError, match="need exams after the scan"):
        chosen([scan(diagnosis="MCI", day=0.0)], classes="sMCI,pMCI")


# --- Images and visits ----------------------------------------------------------------------------


def test_one_image_a_visit_by_rank_then_path() -> None:
    rows = [
        scan(path="raw.nii", rank="1"),
        scan(path="b.nii", rank="0"),
        scan(path="a.nii", rank="0"),
        scan(path="next.nii", session="2", rank="1"),
    ]
    found = chosen(rows)
    assert found["reason"].to_dict() == {
        "a.nii": "",
        "b.nii": NOT_CHOSEN,
        "raw.nii": NOT_CHOSEN,
        "next.nii": "",
    }


def test_an_image_left_out_by_the_adapter_does_not_take_the_visit() -> None:
    found = chosen([scan(path="a", rank="0", reason="unusable"), scan(path="b", rank="1")])
    assert found["reason"].to_dict() == {"a": "unusable", "b": ""}


def test_images_without_a_rank_must_be_unique() -> None:
    scans = choose(tidy(pd.DataFrame([scan(path="a"), scan(path="b")])), DEFAULTS)
    with pytest.raises(UserError, match="more than one scan in session '1'"):
        refuse_repeats(scans)


@pytest.mark.parametrize(("visits", "used"), [("all", "abc"), ("baseline", "a"), ("last", "c")])
def test_visits_are_in_order_of_their_numbers(visits: str, used: str) -> None:
    rows = [scan(session=s, path=p) for s, p in zip(("2", "10", "bl"), "bca", strict=True)]
    found = chosen(rows, visits=visits)
    assert "".join(sorted(found.index[found["reason"] == ""])) == used


def test_days_decide_over_names_of_visits() -> None:
    rows = [scan(session="a", path="late", day=9.0), scan(session="b", path="early", day=1.0)]
    assert chosen(rows, visits="baseline")["reason"]["early"] == ""
    assert chosen(rows, visits="baseline")["reason"]["late"] == "not the subject's first visit"


@pytest.mark.parametrize("visits", ["baseline", "last"])
@pytest.mark.parametrize("column", ["age", "day"])
def test_ages_and_days_order_visits_whose_names_do_not(visits: str, column: str) -> None:
    rows = [scan(session=s, path=s, **{column: a}) for s, a in (("post", 61.0), ("pre", 60.0))]
    used = {"baseline": "pre", "last": "post"}[visits]
    assert chosen(rows, visits=visits).query("reason == ''").index.tolist() == [used]


@pytest.mark.parametrize(
    "names", [("post", "pre"), ("v1", "visit2"), ("12m", "initial"), ("", "x")]
)
def test_visits_in_no_known_order_are_a_sentence(names: tuple[str, str]) -> None:
    rows = [scan(session=name, age=age) for name, age in zip(names, (60.0, 60.0), strict=True)]
    with pytest.raises(UserError, match=r"order of the visits is unknown.*acq_time.*--visits all"):
        chosen(rows, visits="baseline")
    assert (chosen(rows, visits="all")["reason"] == "").all()


def test_names_of_one_kind_are_in_order_of_their_numbers() -> None:
    rows = [scan(session=s, path=s) for s in ("m12", "M06", "m6", "baseline")]
    with pytest.raises(UserError, match="order of the visits"):
        chosen(rows, visits="last")
    assert chosen([rows[0], rows[2], rows[3]], visits="last")["reason"]["m12"] == ""


def test_classes_that_differ_in_case_and_spaces_are_one() -> None:
    rows = [scan(str(n), diagnosis=d) for n, d in enumerate(("AD", " ad", "AD ", "Ad", "hc", "HC"))]
    assert chosen(rows)["diagnosis"].tolist() == ["AD"] * 4 + ["HC"] * 2
    missing = [scan(str(n), diagnosis=d) for n, d in enumerate(("None", "#N/A", "?", "nan"))]
    assert chosen(missing)["diagnosis"].tolist() == [""] * 4


# --- Withdrawals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '0012\n"7"\n\n',
        "sub-0012\nsub-7\n",
        "0012,7\n",
        "0012;left\n7;moved\n",
        "0012\tleft\n7\tmoved\n",
        "participant_id,age\nsub-0012,7\nsub-7,61\n",
        "date,reason,Subject ID\n2024-01-01,left,0012\n2024-01-02,,7\n",
        "# of this month\n0012\n7\n",
        "0012 0012\n7 7\n",
        "0012.0\n7.0\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_the_withdrawn_are_left_out_however_they_are_listed(
    text: str, encoding: str, tmp_path: Path
) -> None:
    file = tmp_path / "w.txt"
    file.write_bytes(text.encode(encoding))
    rows = [scan("0012", path="x"), scan("12", path="y"), scan("7", path="z")]
    found = chosen(rows, withdrawals=str(file))
    assert found["reason"].to_dict() == {"x": "withdrawn", "y": "", "z": "withdrawn"}
    assert found.attrs["warnings"] == ["w.txt lists 2 withdrawn ids: 2 match subjects."]


@pytest.mark.parametrize(
    ("listed", "subject"),
    [
        ("7", "007"),
        ("sub-ADNI002S0295", "002_S_0295"),
        ("002_s_0295", "002_S_0295"),
        ("IXI002", "002"),
        ("OAS1_0001_MR1", "OAS1_0001"),
        ("OAS30001_MR_d0757", "OAS30001"),
    ],
)
def test_withdrawn_ids_are_written_as_the_cohort_writes_them(
    listed: str, subject: str, tmp_path: Path
) -> None:
    pd.DataFrame({"who": [listed, "9999"]}).to_excel(tmp_path / "w.xlsx", index=False)
    found = chosen([scan(subject), scan("else")], withdrawals=str(tmp_path / "w.xlsx"))
    assert found["reason"].tolist() == ["withdrawn", ""]
    assert found.attrs["warnings"] == [
        "w.xlsx lists 2 withdrawn ids: 1 match subjects, 1 match none ('9999')."
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "matches none of the 3 subjects"),
        ("\n\n", "matches none of the 3 subjects"),
        ("99\n", "it has '99', while the cohort has '07', '7', '8'"),
        ("007\n", "matches none of the 3 subjects"),
        ("7,8\n99,07\n", "ids of different subjects in 2 columns"),
    ],
)
def test_a_list_that_names_nobody_stops(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text(text)
    rows = [scan("7", path="x"), scan("07", path="y"), scan("8", path="z")]
    with pytest.raises(UserError, match=words):
        chosen(rows, withdrawals=str(tmp_path / "w.csv"))
    with pytest.raises(UserError, match=r"list of withdrawals .* does not exist"):
        chosen(rows, withdrawals=str(tmp_path / "none"))


@given(st.data())
@pytest.mark.slow
def test_choosing_does_not_depend_on_the_order_of_rows(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = [
        scan(f"s{i // 6}", f"{i // 2 % 3}", path=f"{i}.nii", rank=str(rng.integers(3)), day=i // 2)
        for i in range(24)
    ]
    order = data.draw(st.permutations(rows))
    visits = data.draw(st.sampled_from(["all", "baseline", "last"]))
    one = chosen(rows, visits=visits)["reason"]
    assert one.to_dict() == chosen(order, visits=visits)["reason"].to_dict()
