"""The benchmarks that have an id: one table of where their rows are, what the columns mean and how they are scored.

Row counts are those of the official splits. `revision` is the commit of the Hub's repository that the columns were
written down for; None: the commit is looked up when the set is loaded. Either way the commit that was read is recorded
with a result. `verified`: the official rows were read and counted here, from local copies in the layout of
RANKLAB_DATA; of the others repository, columns and counts are as published and have not been loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from peft_core.tasks._contract import TaskKind


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    columns: column of every role; alternatives where copies name them differently, the first that fits is taken.
    labels: names in index order. splits: training and evaluation split on the Hub. small: under 10,000 training rows
    in the ProPETL paper's sense; None: not in it. drawn: training images that the protocol takes. aliases: folders
    that copies of the set are known by.
    """

    id: str
    title: str
    kind: TaskKind
    repository: str
    configuration: str | None
    revision: str | None
    columns: tuple[dict[str, str], ...]
    metrics: tuple[str, ...]
    train_rows: int
    eval_rows: int
    labels: tuple[str, ...] | None = None
    classes: int = 0
    splits: tuple[str, str] = ("train", "validation")
    license: str = "unknown"
    small: bool | None = None
    drawn: int | None = None
    aliases: tuple[str, ...] = field(default=())
    verified: bool = False


_GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
_ONE = ({"text": "sentence", "label": "label"}, {"text": "text", "label": "label"})
_TWO = tuple(
    {"text": first, "text2": second, "label": "label"}
    for first, second in (
        ("sentence1", "sentence2"),
        ("question1", "question2"),
        ("premise", "hypothesis"),
        ("question", "sentence"),
        ("text", "text2"),
    )
)
_SPAN = ({"question": "question", "context": "context", "answers": "answers"},)
_ENTAILED = ("entailment", "not_entailment")


def _glue(
    name: str,
    title: str,
    rows: tuple[int, int],
    labels: tuple[str, ...] | None,
    metrics: tuple[str, ...],
    **rest: object,
) -> Benchmark:
    single = name in ("cola", "sst2")
    kind: TaskKind = "classification" if single else "pair_classification" if labels else "pair_regression"
    splits = ("train", "validation_matched" if name == "mnli" else "validation")
    return Benchmark(
        f"glue/{name}", title, kind, "nyu-mll/glue", name, _GLUE, _ONE if single else _TWO, metrics, *rows, labels,
        splits=splits, license="other (GLUE; see the set's own page)", **rest,  # type: ignore[arg-type]
    )  # fmt: skip


def _vtab(name: str, title: str, wds: str, revision: str | None, classes: int, test: int, *aliases: str) -> Benchmark:
    return Benchmark(
        f"vtab/{name}", f"VTAB-1k: {title}", "image_classification", f"clip-benchmark/wds_vtab-{wds}", None, revision,
        ({"image": "webp", "label": "cls"}, {"image": "png", "label": "cls"}, {"image": "jpg", "label": "cls"}),
        ("accuracy",), 1000, test, classes=classes, splits=("train", "test"), drawn=1000, aliases=aliases,
    )  # fmt: skip


def _images(
    name: str, title: str, repository: str, revision: str, columns: tuple[str, str], rows: tuple[int, int],
    classes: int, splits: tuple[str, str],
) -> Benchmark:  # fmt: skip
    return Benchmark(
        name, title, "image_classification", repository, None, revision,
        ({"image": columns[0], "label": columns[1]},), ("accuracy",), *rows, classes=classes, splits=splits,
    )  # fmt: skip


_ALL = (
    _glue("cola", "CoLA", (8551, 1043), ("unacceptable", "acceptable"), ("matthews_correlation", "accuracy"),
          small=True, verified=True),
    _glue("sst2", "SST-2", (67349, 872), ("negative", "positive"), ("accuracy",), small=False, verified=True),
    _glue("mrpc", "MRPC", (3668, 408), ("not_equivalent", "equivalent"), ("accuracy", "f1"), small=True, verified=True),
    _glue("qqp", "QQP", (363846, 40430), ("not_duplicate", "duplicate"), ("accuracy", "f1"), small=False),
    _glue("stsb", "STS-B", (5749, 1500), None, ("pearson", "spearman"), small=True),
    _glue("mnli", "MNLI (matched)", (392702, 9815), ("entailment", "neutral", "contradiction"), ("accuracy",),
          small=False),
    _glue("qnli", "QNLI", (104743, 5463), _ENTAILED, ("accuracy",), small=False),
    _glue("rte", "RTE", (2490, 277), _ENTAILED, ("accuracy",), small=True, verified=True),
    _glue("wnli", "WNLI", (635, 71), ("not_entailment", "entailment"), ("accuracy",), verified=True),
    Benchmark("squad", "SQuAD v1.1", "span_qa", "rajpurkar/squad", "plain_text",
              "7b6d24c440a36b6815f21b70d25016731768db1f", _SPAN, ("exact_match", "qa_f1"), 87599, 10570,
              license="CC BY-SA 4.0"),
    Benchmark("squad_v2", "SQuAD v2.0", "span_qa", "rajpurkar/squad_v2", "squad_v2",
              "3ffb306f725f7d2ce8394bc1873b24868140c412", _SPAN, ("exact_match", "qa_f1"), 130319, 11873,
              license="CC BY-SA 4.0"),
    _vtab("cifar100", "CIFAR-100", "cifar100", None, 100, 10000, "cifar"),
    _vtab("dtd", "DTD", "dtd", None, 47, 1880),
    _vtab("flowers102", "Flowers 102", "flowers", None, 102, 6149, "oxford_flowers102"),
    _vtab("pets", "Oxford-IIIT Pets", "pets", None, 37, 3669, "oxford_iiit_pet"),
    _vtab("svhn", "SVHN", "svhn", None, 10, 26032),
    _vtab("eurosat", "EuroSAT", "eurosat", None, 10, 5400),
    _vtab("resisc45", "RESISC45", "resisc45", None, 45, 6300),
    _vtab("clevr_count", "CLEVR, count", "clevr_count_all", None, 8, 15000),
    _vtab("clevr_distance", "CLEVR, distance", "clevr_closest_object_distance",
          "ec9c04224a95836ca0344a6000ec8d8bc8a6d4f2", 6, 15000, "clevr_dist"),
    _vtab("dmlab", "DMLab", "dmlab", None, 6, 22735),
    _vtab("dsprites_orientation", "dSprites, orientation", "dsprites_label_orientation", None, 16, 73728,
          "dsprites_ori"),
    _vtab("snorb_azimuth", "SmallNORB, azimuth", "smallnorb_label_azimuth", None, 18, 12150, "smallnorb_azi"),
    _images("cifar10", "CIFAR-10", "uoft-cs/cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2", ("img", "label"),
            (50000, 10000), 10, ("train", "test")),
    _images("cifar100", "CIFAR-100", "uoft-cs/cifar100", "aadb3af77e9048adbea6b47c21a81e47dd092ae5",
            ("img", "fine_label"), (50000, 10000), 100, ("train", "test")),
    _images("food101", "Food-101", "ethz/food101", "e06acf2a88084f04bce4d4a525165d68e0a36c38", ("image", "label"),
            (75750, 25250), 101, ("train", "validation")),
    Benchmark("xsum", "XSum", "generation", "EdinburghNLP/xsum", None, None,
              ({"text": "document", "target": "summary"}, {"text": "source", "target": "target"}),
              ("rouge2",), 204045, 11334, splits=("train", "test")),
    Benchmark("wmt16/ro-en", "WMT16 Romanian to English", "generation", "wmt/wmt16", "ro-en", None,
              ({"text": "translation.ro", "target": "translation.en"}, {"text": "source", "target": "target"},
               {"text": "ro", "target": "en"}),
              ("bleu",), 610320, 1999, splits=("train", "test")),
)  # fmt: skip
BENCHMARKS: dict[str, Benchmark] = {benchmark.id: benchmark for benchmark in _ALL}
