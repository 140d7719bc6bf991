"""The folders outside a run directory."""

from pathlib import Path

import pytest

from metarun import errors, folders


def test_a_home_folder_stands_for_its_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert folders.expand_home("~/a~b") == Path("/somewhere/a~b")
    assert folders.expand_home("a/~/b") == Path("a/~/b")


def test_a_user_that_does_not_exist_is_a_wrong_config_that_names_the_path(monkeypatch):
    with pytest.raises(errors.ConfigError) as caught:
        folders.expand_home("~nosuchuser/x")
    assert caught.value.where == "~nosuchuser/x" and "~nosuchuser" in caught.value.what
    monkeypatch.setenv("METARUN_CACHE", "~nosuchuser/cache")
    with pytest.raises(errors.ConfigError, match="~nosuchuser/cache"):
        folders.cache_root()
