"""Texts as data: rows of a CSV file, a folder with both parts, WordNet's glosses, and what is refused of them."""

import shutil

import pytest
import torch
from tiny_texts import write_texts

from kdzoo.data.known import location_of
from kdzoo.data.sources import load
from kdzoo.data.texts import LEXICOGRAPHER_FILES, MOST_BYTES, as_texts
from kdzoo.errors import InputError


def texts_of(subset):
    return as_texts(subset.images.flatten(1).numpy())


def test_a_file_of_texts_is_divided_by_content_whatever_the_order_of_its_rows(tmp_path):
    file = write_texts(tmp_path / "words.csv", 120)
    first = load(f"text:{file}")
    header, *rows = file.read_text().splitlines()
    (tmp_path / "turned.csv").write_text("\n".join([header, *rows[::-1]]))
    turned = load(f"text:{tmp_path / 'turned.csv'}")
    assert first.fingerprint == turned.fingerprint
    assert first.holds_texts
    assert not first.holds_maps
    assert first.classes == ("animal", "food", "time")
    assert torch.bincount(first.test.targets).tolist() == [8, 8, 8]  # a fifth of the 40 of each
    written = {tuple(row.rsplit(",", 1)) for row in rows}
    read = {
        (text, first.classes[target])
        for part in (first.train, first.test)
        for text, target in zip(texts_of(part), part.targets, strict=True)
    }
    assert read == written


def test_a_folder_has_both_parts_and_umlauts_quotes_and_commas_stay(tmp_path):
    (tmp_path / "train.csv").write_text('label,text\na,"Grüße, ""von"" hier"\na,zwei\nb,drei\nb,vier 漢\n', encoding="utf-8-sig")
    (tmp_path / "test.tsv").write_text('text\tlabel\nfünf, "sechs"\ta\nsieben\ta\nacht\tb\n')
    found = load(f"text:{tmp_path}")
    assert sorted(texts_of(found.train)) == ['Grüße, "von" hier', "drei", "vier 漢", "zwei"]
    assert sorted(texts_of(found.test)) == ["acht", 'fünf, "sechs"', "sieben"]


def test_a_quotation_mark_in_a_tsv_is_one_of_the_text_and_joins_no_rows(tmp_path):
    rows = [('"A fine film', "good"), ("dull", "bad"), ('long" and dull', "bad"), ('"so so"', "bad"), ('say "yes"', "good")]
    (tmp_path / "reviews.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    found = load(f"text:{tmp_path / 'reviews.tsv'}")
    assert sorted(texts_of(found.train) + texts_of(found.test)) == sorted(text for text, _ in rows)
    assert [note for note in found.notes if "quotation" in note] == [
        "between quotation marks, which are kept, as a .tsv has none of its own: 1 text of reviews.tsv"
    ]


def test_texts_of_several_lines_which_a_lone_quotation_mark_makes_of_rows_are_told(tmp_path):
    (tmp_path / "lone.csv").write_text('text,label\n"A fine film,good\ndull,bad\nlong",good\none,good\ntwo,bad\nthree,bad\n')
    found = load(f"text:{tmp_path / 'lone.csv'}")
    assert len(texts_of(found.train) + texts_of(found.test)) == 4
    assert "of several lines (a lone quotation mark joins rows): 1 text of lone.csv" in found.notes


def test_one_text_of_a_label_is_enough_to_test_on_but_not_to_learn(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label\none,a\ntwo,a\nthree,b\nfour,b\n")
    test.write_text("text,label\nfive,a\nsix,b\n")
    assert len(load(f"text:{tmp_path}").test.targets) == 2
    test.write_text(train.read_text())
    train.write_text("text,label\none,a\ntwo,a\nthree,b\n")
    with pytest.raises(InputError, match=r"train.csv: expected two texts or more of each label, got one of 'b'"):
        load(f"text:{tmp_path}")


def test_a_long_text_is_cut_off_in_whole_characters_and_rows_without_text_are_passed_over_with_notes(tmp_path):
    file = tmp_path / "long.csv"
    file.write_text("text,label\n" + "".join(f"{'ü' * (3000 + i)},{label}\n" for i in range(5) for label in "ab") + ",a\n")
    found = load(f"text:{file}")
    assert {len(text) for text in [*texts_of(found.train), *texts_of(found.test)]} == {MOST_BYTES // 2}
    notes = " ".join(found.notes)
    assert f"cut off after {MOST_BYTES} bytes: 10 texts" in notes
    assert "without a text or a label, passed over: 1 row of long.csv" in notes


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("sentence,label\na,b\n", "no column text; expected the columns text and label, got sentence, label"),
        ("text,label\n,\n", "no row has a text and a label"),
        ("text,label\none,a\ntwo,b\nthree,b\n", "two texts or more of each label, got one of 'a'"),
        (b"text,label\n\xff\xfe,a\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path, content, fault):
    file = tmp_path / "bad.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=fault):
        load(f"text:{file}")


def test_what_is_not_there_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(f"text:{tmp_path / 'none.csv'}")
    with pytest.raises(InputError, match=r"no train.csv; expected train.csv and test.csv"):
        load(f"text:{tmp_path}")


def test_glosses_are_read_from_the_data_folder_by_their_lexicographer_file(tmp_path):
    lines = [
        f'{number:08d} {file:02d} n 01 word 0 000 | gloss {number} of {name}; "as here"  \n'
        for number, (file, name) in enumerate([*LEXICOGRAPHER_FILES.items(), (16, "motive")] * 3)
    ]
    place = tmp_path / "wordnet"
    place.mkdir()
    (place / "data.noun").write_text("  1 This software and database is being provided to you\n" + "".join(lines))
    found = load("glosses", root=tmp_path)
    assert found.classes == tuple(LEXICOGRAPHER_FILES.values())
    assert len(found.test.targets) == 19  # at least one of each
    assert len(found.train.targets) == 38
    assert all(f"of {found.classes[target]}; " in text for text, target in zip(texts_of(found.train), found.train.targets, strict=True))
    (place / "data.noun").write_text("".join(lines[:5]))
    with pytest.raises(InputError, match="no gloss of "):
        load("glosses", root=tmp_path)


@pytest.mark.skipif(location_of("glosses", None) is None, reason="WordNet is not installed")
def test_the_glosses_of_wordnet_are_those_that_the_table_says(tmp_path):
    place = location_of("glosses", None)
    shutil.copy(place, tmp_path / "data.noun")
    found = load("glosses")
    assert (len(found.train.targets), len(found.test.targets), len(found.classes)) == (77_418, 1_987, 19)
