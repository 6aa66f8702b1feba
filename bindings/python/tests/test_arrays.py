"""Arrays that answer to the names of tensors are arrays all the same."""

import numpy as np

from causalcone.pyvene import arrays


def test_they_are_numpys():
    x = arrays.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x.dtype == np.float32 and x.size == 4 and "4." in str(x) and "Array" in repr(x)
    np.testing.assert_array_equal(np.mean(x, axis=0), [2, 3])
    np.testing.assert_array_equal(np.sum(x, axis=1, keepdims=True), [[3], [7]])
    np.testing.assert_array_equal(np.squeeze(x[None], axis=0), x)
    assert np.sum(x) == 10 and np.std(x) > 1 and x.max() == 4 and np.argmax(x) == 3
    assert isinstance(x + 1, arrays.Array) and isinstance(np.concatenate([x, x]).view(np.ndarray), np.ndarray)
    assert (x @ x.T).shape == (2, 2) and x[x > 2].tolist() == [3, 4]


def test_they_answer_as_tensors_do():
    x = arrays.tensor([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(x.mean(dim=-1), [1.5, 3.5])
    np.testing.assert_array_equal(x.sum(0), [4, 6])
    assert x.sum(dim=1, keepdim=True).shape == (2, 1)
    assert x.unsqueeze(0).squeeze(0).shape == (2, 2) and x.squeeze(0).shape == (2, 2) and x.unsqueeze(-1).dim() == 3
    assert x.t()[0, 1] == 3 and x.numel() == 4 and x.detach().cpu().to("cpu").float() is not None
    copy = x.clone()
    copy[0, 0] = 9
    assert x[0, 0] == 1 and type(x.numpy()) is np.ndarray
    np.testing.assert_allclose(x.softmax(-1).sum(-1), [1, 1], atol=1e-6)
    np.testing.assert_allclose(arrays.softmax([[0.0, 0.0]]), [[0.5, 0.5]])
    assert arrays.zeros(2, 3).shape == arrays.ones((2, 3)).shape == arrays.rand(2, 3).shape == arrays.randn(2, 3).shape
