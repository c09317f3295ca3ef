"""A comparison that did not take place does not look like one that went well."""

import pytest
import torch

from tests.agreement.peers import InFloat64, peer


def test_a_missing_library_is_a_skip_at_home_and_a_failure_in_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"pip install 'diffusion-edu\[peers\]'"):
        peer("no_such_library.part", "peers")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no_such_library"):
        peer("no_such_library.part", "peers")


def test_a_library_that_lacks_something_itself_is_an_error_anywhere(monkeypatch, tmp_path):
    (tmp_path / "half_there.py").write_text("import no_such_library\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        peer("half_there", "peers")


def test_in_float64_float32_means_float64_and_nothing_else_changes():
    assert InFloat64(torch).float32 is torch.float64 and InFloat64(torch).float16 is torch.float16
