import math

import pytest
import torch

from camelsight.inference import loss


def test_constant_residual_and_error_have_a_closed_form():
    """log r^2 + log (r^2 - s^2)^2 for every parameter."""
    r, s = 0.3, 0.2
    value = loss.moment_loss(torch.zeros(8, 6), torch.full((8, 6), s), torch.full((8, 6), r))
    assert value.item() == pytest.approx(math.log(r**2) + math.log((r**2 - s**2) ** 2), rel=1e-5)


def test_parameters_are_averaged_and_batches_are_inside_the_log():
    residual = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    value = loss.moment_loss(torch.zeros(2, 2), torch.zeros(2, 2), residual)
    by_hand = (math.log(5) + math.log(41) + math.log(4) + math.log(16)) / 2
    assert value.item() == pytest.approx(by_hand, rel=1e-6)


def test_the_minimum_is_the_posterior_mean_and_standard_deviation():
    theta = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)) * 0.5 + 2
    parameters = torch.tensor([1.0, 1.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=200)

    def closure():
        optimiser.zero_grad()
        value = loss.moment_loss(parameters[0].expand(20_000, 1), parameters[1].expand(20_000, 1), theta)
        value.backward()
        return value

    optimiser.step(closure)
    torch.testing.assert_close(parameters.detach(), torch.tensor([2.0, 0.5]), rtol=0.02, atol=0)


def test_gradients_are_finite_where_a_batch_is_predicted_perfectly():
    mean = torch.rand(4, 6, requires_grad=True)
    sigma = torch.zeros(4, 6, requires_grad=True)
    loss.moment_loss(mean, sigma, mean.detach().clone()).backward()
    assert torch.isfinite(mean.grad).all() and torch.isfinite(sigma.grad).all()


def test_the_floor_does_not_reach_published_values():
    """The best published validation loss is -12.6; the floor changes float32 results not at all."""
    residual, sigma = torch.full((8, 6), 3e-4), torch.full((8, 6), 6e-4)
    value = loss.moment_loss(torch.zeros(8, 6), sigma, residual)
    exact = (
        torch.log(residual[:1].square()).sum() + torch.log((residual[:1].square() - sigma[:1].square()).square()).sum()
    )
    assert value.item() == pytest.approx(exact.item() / 6, rel=1e-6)
    assert value.item() < -20


def test_the_loss_of_an_epoch_is_the_log_of_the_weighted_mean():
    theta, mean, sigma = torch.rand(3, 10, 6).unbind(0)
    parts = [
        loss.moments(mean[rows], sigma[rows], theta[rows]) * len(mean[rows]) for rows in (slice(0, 7), slice(7, 10))
    ]
    torch.testing.assert_close(loss.from_moments(sum(parts) / 10), loss.moment_loss(mean, sigma, theta))
