"""Numbers as people read them."""

from functools import partial

from sparring.loop.formatting import cut, decimals, duration, interval, percent, significant, size


def test_numbers_and_the_lack_of_one() -> None:
    assert [decimals(v, 2) for v in (None, 0.125, 3.0)] == ["-", "0.12", "3.00"]
    assert [significant(v) for v in (None, 3.0, 0.123456, 1e-5, 1234567.0)] == [
        "-",
        "3",
        "0.1235",
        "1e-05",
        "1.235e+06",
    ]
    assert [percent(None, missing="none"), percent(0.625)] == ["none", "62.5\u00a0%"]


def test_an_interval_follows_the_value_it_belongs_to() -> None:
    assert interval(0.625, 0.47, 0.758) == "0.625 [0.470, 0.758]"
    assert interval(0.625, 0.47, 0.758, percent) == "62.5\u00a0% [47.0, 75.8]"
    assert interval(4.0, 3.25, 4.75, partial(decimals, digits=1)) == "4.0 [3.2, 4.8]"
    assert (interval(0.5, None, None), interval(None, None, None)) == ("0.500", "-")


def test_sizes_times_and_texts() -> None:
    assert [size(n) for n in (0, 999, 12_345, 67_108_864, 5e9)] == [
        "0 bytes",
        "999 bytes",
        "12.3 kB",
        "67.1 MB",
        "5 GB",
    ]
    assert [duration(s) for s in (None, 90, 300, 9000)] == ["-", "90.0 s", "5.0 min", "2.5 h"]
    assert [cut("judge", 5), cut("judges", 5)] == ["judge", "judg…"]
