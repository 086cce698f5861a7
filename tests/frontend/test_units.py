import pytest

from kleak.units import size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 kB"),
        (1920, "1.9 kB"),
        (102_348, "99.9 kB"),
        (102_349, "100 kB"),
        (160 * 1024, "160 kB"),
        (1024 * 1024 - 1, "1.0 MB"),
        (1 << 20, "1.0 MB"),
        (3 << 30, "3.0 GB"),
        (5 << 60, "5.0 EB"),
        (1 << 72, "4096 EB"),
        (-2048, "-2.0 kB"),
    ],
)
def test_size(size_bytes, text):
    assert size(size_bytes) == text


def test_exact_size_is_in_bytes():
    assert size(3 << 30, exact=True) == "3221225472 B"
