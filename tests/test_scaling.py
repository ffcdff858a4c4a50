import numpy as np
import pytest
import torch

from camelsight.maps import scaling


def test_signed_log10_keeps_the_sign_and_sends_zero_to_zero():
    values = np.array([1e12, -1e3, 0.0, 0.1, 1.0], np.float32)
    np.testing.assert_allclose(scaling.signed_log10(values), [12, -3, 0, -1, 0], atol=1e-6)
    np.testing.assert_array_equal(scaling.signed_log10(torch.from_numpy(values)).numpy(), scaling.signed_log10(values))


def test_statistics_add_up_over_chunks_in_float64():
    values = np.random.default_rng(0).normal(11.1, 0.49, (40, 32, 32)).astype(np.float32)
    chunked = sum(scaling.sums(values[start : start + 7]) for start in range(0, 40, 7))
    mean, std = scaling.statistics(chunked)
    assert mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-12)
    assert std == pytest.approx(values.std(dtype=np.float64), rel=1e-9)


def test_standardised_maps_have_mean_zero_and_spread_one():
    values = np.random.default_rng(0).normal(11.1, 0.49, (4, 32, 32))
    scaled = scaling.Scale(*scaling.statistics(scaling.sums(values))).scale(10**values)
    assert scaled.mean() == pytest.approx(0, abs=1e-12) and scaled.std() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("scale", [scaling.Scale(11, 2), scaling.Scale(3, 2, 1.0), scaling.Scale(4, 2, 0.0, 1e-9)])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_a_scale_is_undone_whatever_its_offset_and_unit(scale, convert):
    values = np.random.default_rng(0).lognormal(27, 1, (4, 8, 8)) * scale.unit
    values[0] *= -1
    values[1, 0] = 0
    back = scale.unscale(scale.scale(convert(values)))
    np.testing.assert_allclose(back, values, rtol=1e-9, atol=1e-9 * scale.unit)
    expected = np.sign(values[2:]) * np.log10(np.abs(values[2:]) / scale.unit + scale.offset)
    np.testing.assert_allclose(scale.log(convert(values))[2:], expected, rtol=1e-12)


@pytest.mark.parametrize("size", [4, 5])
def test_there_are_eight_different_symmetries_and_the_first_is_none(size):
    image = torch.arange(size * size, dtype=torch.float32).reshape(size, size)
    table = scaling.symmetry_table(size)
    images = scaling.transform(image.expand(8, 1, -1, -1), torch.arange(8), table)[:, 0]
    expected = [torch.rot90(one, turns) for one in (image, image.T) for turns in range(4)]
    assert torch.equal(images, torch.stack(expected))


@pytest.mark.parametrize("channels", [1, 2])
def test_each_map_gets_its_own_symmetry_and_all_its_channels_the_same(channels):
    maps = torch.rand(5, channels, 8, 8)
    table = scaling.symmetry_table(8)
    group = torch.tensor([3, 0, 7, 3, 5])
    together = scaling.transform(maps, group, table)
    for i in range(5):
        assert torch.equal(together[i], scaling.transform(maps[i : i + 1], group[i : i + 1], table)[0])
        for channel in range(channels):
            alone = scaling.transform(maps[i : i + 1, channel : channel + 1], group[i : i + 1], table)[0, 0]
            assert torch.equal(together[i, channel], alone)
