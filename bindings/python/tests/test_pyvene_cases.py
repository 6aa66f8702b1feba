"""pyvene's documented behaviour: cases that were run by pyvene 0.1.8, run here."""

import numpy as np
import pytest
from cases import CASES
from common import FIXTURES, Lib, numbers, tensors

EXPECTED = tensors(FIXTURES / "python.safetensors")


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name):
    expected = {key.split("/", 1)[1]: one for key, one in EXPECTED.items() if key.split("/", 1)[0] == name}
    assert expected, f"{name} is not among the fixtures: run make_python.py"
    found = CASES[name](Lib())
    assert set(found) == set(expected)
    for key, theirs in expected.items():
        ours = numbers(found[key])
        assert ours.shape == theirs.shape, key
        if theirs.dtype.kind == "i":
            assert (ours == theirs).all(), key
        else:
            # float32 here, float64 there.
            np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0, err_msg=key)


def test_every_fixture_has_a_case():
    assert {key.split("/", 1)[0] for key in EXPECTED} == set(CASES)
