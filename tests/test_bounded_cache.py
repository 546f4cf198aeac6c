"""The bounded cache: sizes, replacement, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from edbatch_tvm.bounded_cache import BoundedCache


def test_a_value_put_again_counts_once() -> None:
    cache: BoundedCache[str, str] = BoundedCache(6, len)
    cache.put("a", "xxxx")
    cache.put("a", "yy")
    cache.put("b", "zzzz")
    assert (cache.get("a"), cache.get("b")) == ("yy", "zzzz")
    cache.put("c", "x")
    assert [cache.get(key) for key in "abc"] == [None, "zzzz", "x"]


def test_the_number_of_values_is_the_size_where_none_is_given() -> None:
    cache: BoundedCache[int, int] = BoundedCache(3)
    made = [cache.get_or_make(key, lambda key=key: 10 * key) for key in (1, 2, 3, 1, 4)]  # type: ignore[misc]
    assert made == [10, 20, 30, 10, 40]
    assert [cache.get(key) for key in (1, 2, 3, 4)] == [10, None, 30, 40]
    cache.clear()
    assert cache.get(1) is None


def test_threads_share_a_cache() -> None:
    cache: BoundedCache[int, int] = BoundedCache(8)

    def use(start: int) -> bool:
        keys = [key % 16 for key in range(start, start + 500)]
        return all(cache.get_or_make(key, lambda key=key: key) == key for key in keys)  # type: ignore[misc]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(4)))
    assert sum(cache.get(key) is not None for key in range(16)) == 8
