import numpy as np
import scipy.linalg
import threadpoolctl
import torch

from camelsight import cli


def test_a_process_computes_with_as_many_threads_as_it_is_told():
    scipy.linalg.inv(np.eye(2))  # the libraries of both are loaded
    try:
        for count in (2, 1):
            cli.set_threads(count)
            libraries = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
            assert {one["num_threads"] for one in libraries} == {count} == {torch.get_num_threads()}
    finally:
        cli.set_threads(1)  # as conftest.py has it
