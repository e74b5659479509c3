"""tools/assets/soak.py: what grows is found, noise and a warm-up are not; and one round of the real work runs."""

import socket
import threading

import numpy as np
import pytest

from fasthamer.tools.assets import soak
from fasthamer.tools.assets.soak import Usage, trends, usage


def rounds(growth_mb=0.0, handles=lambda index: 12, count=30):
    """Rounds of a minute; memory with a noise of 5 MB, which grows by `growth_mb` over the measured 20 minutes."""
    noise = np.random.default_rng(0).normal(0, 5, count)
    memory = [1000 + noise[index] + growth_mb * index / 20 for index in range(count)]
    return [Usage(60.0 * (index + 1), memory[index], handles(index), 14, 0) for index in range(count)]


def flat(found):
    return {each.name: each.flat for each in found}


def test_noise_is_flat():
    assert all(flat(trends(rounds())).values())


def test_memory_that_grows_by_a_twentieth_is_found_and_its_growth_measured():
    found = trends(rounds(growth_mb=50))
    assert flat(found) == {"memory_mb": False, "handles": True, "threads": True, "processes": True}
    assert found[0].growth == pytest.approx(50, abs=10)


def test_one_handle_left_open_every_ten_rounds_is_found():
    assert not flat(trends(rounds(handles=lambda index: 12 + index // 10)))["handles"]


def test_what_a_warm_up_takes_does_not_count():
    assert flat(trends(rounds(handles=lambda index: min(index, 9))))["handles"]


def test_too_few_rounds_are_refused():
    with pytest.raises(ValueError, match=r"4 rounds after the warm-up, 6 are needed: raise --minutes"):
        trends(rounds(count=5))


def test_an_open_socket_and_a_thread_are_counted():
    before, stop = usage(0.0), threading.Event()
    thread = threading.Thread(target=stop.wait)
    with socket.socket():
        thread.start()
        during = usage(1.0)
        stop.set()
        thread.join()
    after = usage(2.0)
    assert (during.handles, during.threads) == (before.handles + 1, before.threads + 1)
    assert (after.handles, after.threads) == (before.handles, before.threads)
    assert 50 < after.memory_mb < 50_000


def test_a_round_trains_evaluates_and_predicts(capsys):
    pytest.importorskip("av", reason="needs the extra [video]")
    pytest.importorskip("onnxscript", reason="needs the extra [export]")
    with pytest.raises(SystemExit) as exit:
        soak.main(["--minutes", "0"])
    printed = capsys.readouterr().err
    assert exit.value.code == 2 and "1 rounds after the warm-up" in printed  # as many as 0 minutes allow
    assert printed.startswith("seconds ") and "handles" in printed
