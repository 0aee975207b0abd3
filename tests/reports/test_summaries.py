from __future__ import annotations

import numpy as np
import pytest

from reports.summaries import Unsuited, end, rises, window_mean

EPOCHS = np.array([0.0, 10, 20, 30])


def test_end_and_rises() -> None:
    values = np.array([[9.0, 5, 6, 4], [9, 8, 7, 6], [1, 3, 2, 5], [9, np.nan, 5, 4]])
    assert end(EPOCHS, values).tolist() == [4, 6, 5, 4]
    assert rises(EPOCHS, values)[:3].tolist() == [1, 0, 5]
    assert np.isnan(rises(EPOCHS, values)[3])  # a missing point may hide a rise
    with pytest.raises(Unsuited, match="only once"):
        rises(EPOCHS[:1], values[:, :1])


def test_window_mean_by_hand() -> None:
    # from 5 (6) over 10 (2) and 20 (4) to 25 (3): (6+2)/2·5 + (2+4)/2·10 + (4+3)/2·5 = 67.5 over 20
    values = np.array([[10.0, 2, 4, 2]])
    assert window_mean(EPOCHS, values, (5, 25)) == pytest.approx([3.375])
    assert window_mean(EPOCHS, values, (10, 20)) == pytest.approx([3.0])


def test_window_mean_needs_only_its_window() -> None:
    values = np.array([[np.nan, 2, 4, np.nan], [1, np.nan, 2, 3]])
    got = window_mean(EPOCHS, values, (10, 20))
    assert got[0] == 3.0 and np.isnan(got[1])
    assert np.isnan(window_mean(EPOCHS, values, (5, 20))).all()


@pytest.mark.parametrize("window", [(-5, 10), (10, 40), (20, 10)])
def test_window_must_be_spanned(window: tuple[float, float]) -> None:
    with pytest.raises(Unsuited, match="do not span"):
        window_mean(EPOCHS, np.ones((1, 4)), window)
