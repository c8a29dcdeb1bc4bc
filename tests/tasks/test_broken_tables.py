"""RELIABILITY.md 18 to 20: what a table can be wrong in, and the sentence for it."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peft_core.tasks import _lines, _tables, get_task
from peft_core.tasks._tables import TableFile
from tests.tasks.own_data import refusal, table

GOOD = "text,label\n" + "".join(f"row {row},{row % 2}\n" for row in range(20))


def written(folder: Path, data: bytes | str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def texts_of(path: Path, **options: object) -> set[str]:
    task = get_task(str(path), options)
    split = {"train": task.info.max_train_rows, "eval": task.info.max_eval_rows}
    return {text for part, count in split.items() for text in task.rows(part, count, 0, options).columns["text"]}


MEASURED = """
import resource, sys
from peft_core.records import InputError
from peft_core.tasks import get_task, preview
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    task = get_task(sys.argv[1])
    task.rows("train", 100, 0, {})
    print(task.info.max_train_rows, task.info.max_eval_rows)
except InputError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def measured(path: Path) -> tuple[str, int]:
    """What a fresh process says of a file, and by how many MiB it grew (imports of pyarrow and pandas included)."""
    out = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True)
    said, grown = out.stdout.strip().rsplit("\n", 1)
    return said, int(grown)


def test_a_field_of_one_gigabyte_is_refused_in_bounded_memory(tmp_path):
    block = gzip.compress(b"x" * 2**20, 1)
    path = written(tmp_path, gzip.compress(b"text,label\nshort,0\n") + block * 1024, "table.csv.gz")
    said, grown = measured(path)
    assert "row 3: its line is longer than 8,388,608 characters" in said
    assert grown < 300


def test_many_rows_take_a_few_bytes_each(tmp_path):
    path = tmp_path / "long.csv"
    block = "".join(f"this is the sentence with the number {row} of the table,{row % 3}\n" for row in range(20_000))
    path.write_text("text,label\n" + block * 50)
    said, grown = measured(path)
    assert path.stat().st_size > 40 * 2**20
    train, held = map(int, said.split())
    assert 750_000 < train <= 850_000 and held == 100_000
    assert grown < 300


def test_rows_after_the_cap_are_not_read_and_that_is_told(tmp_path, monkeypatch):
    from peft_core.tasks import preview

    monkeypatch.setattr(_tables, "MAX_ROWS", 30)
    found = preview(str(table(tmp_path, 80)))
    assert found.rows == 30
    assert found.notes[0] == "only the first 30 rows are read"


def test_a_hundred_thousand_columns(tmp_path):
    path = written(tmp_path, ",".join(f"c{number}" for number in range(100_000)) + "\n")
    assert "it has 100,000 columns; at most 1,000 are read" in refusal(path)


@pytest.mark.parametrize(
    "tail",
    ['"never closed,1\n' + GOOD, '"never closed', 'fine,0\n"over\nlines,1\n', '"' + "x\n" * 200_000],
    ids=["swallows rows", "at the end", "over lines", "long"],
)
def test_an_unclosed_quote_names_the_row_it_opens_in(tmp_path, tail):
    first = 22 if tail.startswith('"') else 23
    assert f"row {first}: a" in refusal(written(tmp_path, GOOD + tail))
    assert "not closed" in refusal(written(tmp_path, GOOD + tail))


def test_a_quote_in_the_middle_of_an_unquoted_text_is_text(tmp_path):
    assert 'a 5" disk' in texts_of(written(tmp_path, GOOD + 'a 5" disk,1\n'))


def test_quoted_texts_may_hold_line_ends_delimiters_and_quotes(tmp_path):
    path = written(tmp_path, GOOD + '"one\ntwo, ""three""",1\n' + "".join(f'"long\n{row}",0\n' for row in range(50)))
    assert 'one\ntwo, "three"' in texts_of(path) and "long\n7" in texts_of(path)


def test_a_row_with_another_number_of_fields_is_named(tmp_path):
    assert "row 22 has 3 fields and the header has 2" in refusal(written(tmp_path, GOOD + "one, two,1\n"))
    assert "row 22 has 1 field and the header has 2" in refusal(written(tmp_path, GOOD + "one\n"))
    quoted = GOOD + '"a ""quoted"" row",1\none\n'
    assert "row 23 has 1 field" in refusal(written(tmp_path, quoted))


def test_a_gzip_named_csv_is_unpacked(tmp_path):
    assert "row 3" in texts_of(written(tmp_path, gzip.compress(GOOD.encode())))


def test_a_gzip_that_is_cut_off(tmp_path):
    import random

    noise = GOOD + "".join(f"{random.Random(row).random()},{row % 2}\n" for row in range(20_000))
    packed = gzip.compress(noise.encode())
    assert "the gzip is damaged or cut off" in refusal(written(tmp_path, packed[: len(packed) // 2]))


def zipped(names: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in names.items():
            archive.writestr(name, text)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (zipped({"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<x/>"}), "it is an Excel workbook"),
        (zipped({"table.csv": GOOD}), "it is a zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "it is an old Excel or Word file"),
        (b"%PDF-1.7", "it is a PDF file"),
        (b"BZh91AY&SY", "compressed with bzip2"),
        (b"PAR1\x15", "it is a Parquet file; name it .parquet"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "a gzip inside a gzip"),
        (b"", "the file is empty"),
        (b"\n\n", "no header line"),
    ],
)
def test_other_files_named_csv_are_refused(tmp_path, data, sentence):
    assert sentence in refusal(written(tmp_path, data))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
def test_byte_order_marks_and_utf_16_are_read(tmp_path, encoding):
    text = GOOD.replace("row 3", "čaj ☕")
    assert "čaj ☕" in texts_of(written(tmp_path, text.encode(encoding)))


def test_latin_1_is_refused_with_its_row_until_it_is_named(tmp_path):
    path = written(tmp_path, GOOD.replace("row 3", "café").encode("latin-1"))
    assert "row 5: byte 0xe9 is not UTF-8" in refusal(path)
    assert "café" in texts_of(path, encoding="latin-1")
    assert "task_options.encoding is 'ebcdic'" in refusal(path, encoding="ebcdic")


def test_a_zero_byte_is_refused_with_its_row(tmp_path):
    assert "row 4: it holds a zero byte" in refusal(written(tmp_path, GOOD.replace("row 2", "ro\0w")))


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_read(tmp_path, end):
    assert texts_of(written(tmp_path, GOOD.replace("\n", end))) == {f"row {row}" for row in range(20)}


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("text,", "1 of 2 columns have no name, the first of them column 2"),
        ("text,text", "column 'text' is there 2 times"),
        ("1,2", "task_options.label is None; no column looks like it"),
    ],
)
def test_headers(tmp_path, header, sentence):
    body = "".join(f"a text {row},some other text {row}\n" for row in range(9))
    assert sentence in refusal(written(tmp_path, f"{header}\n{body}"))


def test_a_header_only(tmp_path):
    assert "it holds a header and no rows" in refusal(written(tmp_path, "text,label\n"))


def test_a_column_that_is_not_there(tmp_path):
    assert "task_options.label is 'klass'; the columns are text, label" in refusal(table(tmp_path), label="klass")
    assert "task_options.lable is 'x'; the options are" in refusal(table(tmp_path), lable="x")


def labelled(folder: Path, labels: list[str]) -> Path:
    return written(folder, "text,label\n" + "".join(f"text {row},{label}\n" for row, label in enumerate(labels)))


def test_empty_and_nan_labels_are_counted_and_can_be_left_out(tmp_path):
    path = labelled(tmp_path, ["a", "b"] * 10 + ["", "NaN", " "])
    assert "column 'label' is empty or NaN in 3 of 23 rows" in refusal(path)
    assert len(texts_of(path, drop_bad=True)) == 20


def test_empty_texts_are_counted(tmp_path):
    assert "column 'text' is empty or NaN in 2 of 22 rows" in refusal(written(tmp_path, GOOD + ",1\n ,0\n"))


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["a"] * 10, "all 10 rows have the label 'a'"),
        ([f"c{row}" for row in range(10)], "every one of the 10 rows has a label of its own"),
        (
            ["1", "0"] * 5 + ["1.0"] * 3,
            "labels '1' (5 rows) and '1.0' (3 rows) are the same number written in two ways",
        ),
        ([f"c{row // 2}" for row in range(2400)], "1,200 different labels; at most 1,000"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, sentence):
    assert sentence in refusal(labelled(tmp_path, labels), kind="classification")


def test_a_target_that_is_no_number_is_named(tmp_path):
    path = labelled(tmp_path, ["0.5", "1.5", "2.5"] * 10 + ["inf", "many"])
    assert "2 values that are no finite numbers, the first in row 32: 'inf'" in refusal(path, kind="regression")


def test_labels_that_differ_by_capitals_and_classes_of_one_row_are_told(tmp_path):
    from peft_core.tasks import preview

    found = preview(str(labelled(tmp_path, ["yes", "Yes"] * 10 + ["rare"])))
    assert not found.problems
    assert any("'rare'" in note and "one row only" in note for note in found.notes)
    assert any("differ only by capitals" in note for note in found.notes)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('{"text": "a", "label": 1}\n{"text": "b"', "row 2 is no valid JSON"),
        ('{"text": "a", "label": 1}\n["b", 2]', "row 2: it is no JSON object"),
        ('{"text": "a", "text": "b", "label": 1}', "row 1: key 'text' is there twice"),
        ("\n\n", "it holds no rows"),
        ('{"text": "a", "label": 1}\n{"text": "\\ud800", "label": 2}', "row 2 holds half of a surrogate pair"),
        ('[{"text": "a"}]', "row 1: it is no JSON object"),
    ],
)
def test_broken_json_lines(tmp_path, lines, sentence):
    assert sentence in refusal(written(tmp_path, lines, "table.jsonl"))


PIECES = st.sampled_from(["a", "é", '"', '""', ",", "\n", "\r\n", ";", "\t", " ", "☕", "x" * 40, "'", "0", "1.0"])
CELLS = st.lists(PIECES, max_size=6).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(CELLS, CELLS).filter(any), min_size=1, max_size=25),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_csv_writer_wrote_is_read_whatever_its_cells_hold(tmp_path, monkeypatch, rows, encoding, end):
    monkeypatch.setattr(_lines, "BLOCK", 97)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([("first", "second"), *rows])
    source = TableFile(written(tmp_path, text.getvalue().encode(encoding)), delimiter="comma")
    batches = list(source.batches(source.columns))
    assert [tuple(row.values()) for batch in batches for row in batch.to_pylist()] == rows


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.sampled_from(b'a,"\n\r\0\xff;1{}[]: PK\x1f\x8b'), max_size=200).map(bytes),
    header=st.booleans(),
    name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.csv.gz", "t.zip"]),
)
def test_any_bytes_give_a_sentence_or_rows(tmp_path, data, header, name):
    from peft_core.tasks import preview

    found = preview(str(written(tmp_path, b"text,label\n" * header + data, name)))
    assert found.problems or found.info


def test_a_file_that_is_no_parquet(tmp_path):
    assert "it is no Parquet file" in refusal(written(tmp_path, "no", "table.parquet"))


def test_too_few_different_texts_to_hold_any_out(tmp_path: Path) -> None:
    path = written(tmp_path, "text,label\n" + "good film,1\nbad film,0\n" * 20)
    assert "no row is left to evaluate on" in refusal(path)


def test_what_is_wrong_with_a_parquet_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.table({"text": [f"row {row}" for row in range(20)], "label": [row % 2 for row in range(20)]})
    pq.write_table(rows, tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    assert "it is damaged or cut off" in refusal(written(tmp_path, data[:-20], "cut.parquet"))
    assert "its gzip holds a Parquet file" in refusal(written(tmp_path, gzip.compress(data), "packed.parquet.gz"))
    assert "it is no Parquet file, whatever its name" in refusal(written(tmp_path, GOOD, "text.parquet"))
    assert "the file is empty" in refusal(written(tmp_path, b"", "empty.parquet"))
